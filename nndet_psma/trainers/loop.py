"""The one training loop: any model that maps a batch to losses, over accelerate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, Subset

from nndet_psma.artifacts.plan import Stage
from nndet_psma.core.errors import UserError
from nndet_psma.trainers.checkpoint import Progress, load_checkpoint, save_checkpoint
from nndet_psma.trainers.metrics_log import MetricsLog

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class LoopSettings:
    """What the loop needs besides model and data.

    Attributes:
        folder: checkpoint/ and metrics.csv are kept here.
        made_from: hash of everything that determines the result; a checkpoint of another hash is refused.
        seed: of the model's own sampling (anchors, proposals); with the step it fixes every draw.
        workers: loader processes.
        save_every: steps between checkpoints.
        log_every: steps between rows of metrics.csv.
        clip_norm: gradient norm above which gradients are scaled down.
        optimizer: "sgd" or "adamw".
        momentum: of SGD (0.9 in Xu et al. 2023).
        weight_decay: 1e-4 in Xu et al. 2023.
        images_per_step: batch size, for the log.
    """

    folder: Path
    made_from: str
    seed: int
    workers: int
    save_every: int
    log_every: int
    clip_norm: float = 10.0
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    images_per_step: int = 1
    on_step: Callable[[int, float], None] = field(default=lambda step, loss: None)


def train_loop(
    model: nn.Module,
    compute_losses: Callable[[nn.Module, Any], Losses],
    batches: Dataset[Any],
    stage: Stage,
    settings: LoopSettings,
    accelerator: Accelerator,
) -> nn.Module:
    """Train ``model`` for ``stage.iterations`` steps, going on from the checkpoint in ``settings.folder``.

    Item ``i`` of ``batches`` is the batch of step ``i``; random draws of a step depend on (seed, step) only, so an
    interrupted and resumed run ends with the same weights as an uninterrupted one.

    Raises:
        UserError: the loss is not finite (names the slices of the batch; the last good checkpoint stays), or the
            checkpoint belongs to something else.
    """
    optimizer = build_optimizer(model, stage, settings)
    checkpoint = settings.folder / "checkpoint"
    progress = load_checkpoint(checkpoint, model, optimizer, settings.made_from)
    start = progress.step if progress else 0
    log = MetricsLog(settings.folder / "metrics.csv", progress.metrics_rows if progress else 0)
    model, optimizer = accelerator.prepare(model, optimizer)
    model.train()
    clock = time.perf_counter()
    for step, batch in enumerate(_remaining(batches, start, stage.iterations, settings, accelerator), start):
        _seed_step(settings.seed, step)
        losses = _optimise(model, optimizer, compute_losses, batch, stage, step, settings, accelerator)
        settings.on_step(step + 1, losses["loss"])
        if (step + 1) % settings.log_every == 0 or step + 1 == stage.iterations:
            seconds = (time.perf_counter() - clock) / settings.log_every
            log.add(
                losses, step=step + 1, learning_rate=learning_rate(stage, step), **_speed(seconds, settings)
            )
            clock = time.perf_counter()
        if (step + 1) % settings.save_every == 0 or step + 1 == stage.iterations:
            _save(checkpoint, model, optimizer, step + 1, log, settings, accelerator)
    unwrapped: nn.Module = accelerator.unwrap_model(model)
    return unwrapped


def learning_rate(stage: Stage, step: int) -> float:
    """Rate at ``step``: linear warm-up from a thousandth, then a tenth after every milestone."""
    rate = stage.learning_rate * 0.1 ** sum(step >= milestone for milestone in stage.milestones)
    if step < stage.warmup:
        rate *= 0.001 + 0.999 * step / stage.warmup
    return rate


def build_optimizer(model: nn.Module, stage: Stage, settings: LoopSettings) -> Optimizer:
    """The planned optimiser over all trainable parameters."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(trainable, lr=stage.learning_rate, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        trainable, lr=stage.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )


def _remaining(
    batches: Dataset[Any], start: int, stop: int, settings: LoopSettings, accelerator: Accelerator
) -> Iterator[Any]:
    loader = DataLoader(
        Subset(batches, range(start, stop)),
        batch_size=None,
        num_workers=settings.workers,
        pin_memory=accelerator.device.type == "cuda",
        prefetch_factor=4 if settings.workers else None,
        # spawned workers would import everything again; fork is safe as the dataset holds no threads
        multiprocessing_context="fork" if settings.workers else None,
    )
    for batch in loader:
        yield _to_device(batch, accelerator.device)


def _to_device(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {name: _to_device(value, device) for name, value in batch.items()}
    if isinstance(batch, list):
        return [_to_device(value, device) for value in batch]
    return batch


def _seed_step(seed: int, step: int) -> None:
    torch.manual_seed((seed * 1_000_003 + step) % 2**63)


def _optimise(
    model: nn.Module,
    optimizer: Optimizer,
    compute_losses: Callable[[nn.Module, Any], Losses],
    batch: Any,
    stage: Stage,
    step: int,
    settings: LoopSettings,
    accelerator: Accelerator,
) -> dict[str, float]:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(stage, step)
    with accelerator.autocast():
        parts = compute_losses(model, batch)
    total = torch.stack(list(parts.values())).sum()
    values = {name: float(part.detach()) for name, part in parts.items()}
    values["loss"] = float(total.detach())
    if not math.isfinite(values["loss"]):
        raise UserError(
            f"the loss of stage '{stage.name}' is not finite at step {step + 1}",
            found=f"{values} on the slices {', '.join(batch.get('slices', []))}",
            remedy="The last checkpoint is kept; lower trainer_cfg.learning_rate and start again",
        )
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(total)
    accelerator.clip_grad_norm_(model.parameters(), settings.clip_norm)
    optimizer.step()
    return values


def _speed(seconds: float, settings: LoopSettings) -> dict[str, float]:
    memory = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
    return {
        "seconds_per_step": seconds,
        "images_per_second": settings.images_per_step / seconds,
        "memory_gb": memory,
    }


def _save(
    folder: Path,
    model: nn.Module,
    optimizer: Any,
    step: int,
    log: MetricsLog,
    settings: LoopSettings,
    accelerator: Accelerator,
) -> None:
    if accelerator.is_main_process:
        log.write()
        plain = getattr(optimizer, "optimizer", optimizer)
        progress = Progress(step, settings.made_from, len(log.rows))
        save_checkpoint(folder, accelerator.unwrap_model(model), plain, progress)
