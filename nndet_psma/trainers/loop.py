"""The one training loop: any model that maps a batch to losses, on one or several processes of accelerate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER
from nndet_psma.trainers.average import WeightAverage
from nndet_psma.trainers.checkpoint import (
    CHECKPOINT_FOLDER,
    MODEL_FILE,
    Best,
    Progress,
    load_checkpoint,
    save_best,
    save_checkpoint,
)
from nndet_psma.trainers.distributed import (
    gather,
    image_numbers,
    on_main,
    shared_norms,
    spread,
    summed,
    together,
)
from nndet_psma.trainers.failure import FAILED_FILE, LossWatch, failed_step, write_failure
from nndet_psma.trainers.loading import Share, load_batches, loader_workers
from nndet_psma.trainers.loop_settings import LoopSettings
from nndet_psma.trainers.metrics_log import METRICS_FILE, MetricsLog
from nndet_psma.trainers.networks.sampling import seed_samplers
from nndet_psma.trainers.networks.weights import read_model
from nndet_psma.trainers.observer import Observer, StepReport
from nndet_psma.trainers.precision import Precision
from nndet_psma.trainers.schedule import build_optimizer, learning_rate
from nndet_psma.trainers.stopping import Stopped, StopRequest

__all__ = ["LoopSettings", "Losses", "train_loop"]
Losses = dict[str, Tensor]
BEST_FOLDER = "best"


def train_loop(
    model: nn.Module,
    compute_losses: Callable[[nn.Module, Any], Losses],
    batches: Any,
    stage: Stage,
    settings: LoopSettings,
    accelerator: Accelerator,
) -> nn.Module:
    """Train ``model`` for ``stage.iterations`` steps, going on from the checkpoint in ``settings.folder``.

    Item ``i`` of ``batches`` is the batch of step ``i`` over all processes; with several of them
    ``batches.part(i, rank, world)`` is the part of one (images ``rank, rank + world, ...``). Random draws of a step
    depend on (seed, step, image) only, so an interrupted and resumed run ends with the same weights as an
    uninterrupted one, and several processes with those of one, up to rounding.

    Ctrl-C and SIGTERM end the step, save, and raise :class:`~nndet_psma.trainers.stopping.Stopped`.

    Args:
        model: to train, in any mode, on any device.
        compute_losses: parts of the loss; with several processes their mean over processes must be the loss of the
            whole batch (see ``distributed.global_means``).
        batches: see above; a dictionary with "slices" names its slices.
        stage: iterations and rates.
        settings: the rest.
        accelerator: device and processes.

    Raises:
        UserError: a loss or gradient is wrong (names the slices of the batch; the last checkpoint stays), the GPU or
            the disk is full, or the checkpoint belongs to something else.
    """
    loop = _Loop(model, compute_losses, stage, settings, accelerator)
    loop.run(batches)
    return loop.result()


class _Loop:
    """State of one training; every method is called on all processes."""

    def __init__(
        self,
        model: nn.Module,
        compute_losses: Callable[[nn.Module, Any], Losses],
        stage: Stage,
        settings: LoopSettings,
        accelerator: Accelerator,
    ) -> None:
        self.stage, self.settings, self.accelerator = stage, settings, accelerator
        self.trainer = trainer = settings.trainer
        self.validate_every = trainer.validation_steps(stage.iterations)
        self.compute_losses = compute_losses
        self.finished = False
        model = model.to(accelerator.device)
        on_gpu = accelerator.device.type == "cuda"
        if on_gpu if trainer.channels_last is None else trainer.channels_last:
            model = model.to(memory_format=_channels_last(model))
        self.model: nn.Module = shared_norms(model, accelerator)
        self.optimizer = build_optimizer(
            self.model,
            stage,
            settings.optimizer,
            momentum=trainer.sgd_momentum,
            weight_decay=trainer.weight_decay,
            norm_decay=settings.norm_decay,
        )
        self.precision = Precision(trainer.precision, accelerator.device)
        self.average = WeightAverage(self.model, trainer.ema_decay) if trainer.ema_decay else None
        self._restore()
        self.spread = spread(self.model, accelerator)

    def _restore(self) -> None:
        folder = self.settings.folder / CHECKPOINT_FOLDER
        progress = load_checkpoint(
            folder, self.model, self.optimizer, self.settings.made_from, self.average
        ) or Progress(0, self.settings.made_from)
        self.step, self.best = progress.step, progress.best
        self.watch = LossWatch(progress.recent_losses, progress.skipped, progress.skipped_in_row)
        self.precision.restore(progress.scaler)
        self.log = MetricsLog(
            self.settings.folder / METRICS_FILE,
            progress.metrics_rows,
            self.trainer.log_every,
            progress.metrics_pending,
        )

    def run(self, batches: Any) -> None:
        """Make the steps that are left."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        share = Share(batches, self.step, self.stage.iterations, rank, world)
        self.model.train()
        with ExitStack() as ending:
            observers = self._observers(ending)
            stop = ending.enter_context(StopRequest())
            source = load_batches(share, loader_workers(self.trainer.num_workers), self.accelerator.device)
            ending.callback(source.close)
            (self.settings.folder / FAILED_FILE).unlink(missing_ok=True)
            clock = time.perf_counter()
            while self.step < self.stage.iterations:
                batch = together(self.accelerator, partial(next, source))
                losses, images, signal_number = self._make_step(batch, stop)
                report = StepReport(
                    self.step, self.stage.iterations, losses, learning_rate(self.stage, self.step - 1),
                    images, time.perf_counter() - clock, batch,
                )  # fmt: skip
                self._after_step(report, observers, signal_number)
                clock = time.perf_counter()
            self.finished = True

    def _observers(self, ending: ExitStack) -> list[Observer]:
        """Observers of this process; all are told of the end, whatever ends the training."""
        if not self.accelerator.is_main_process:
            return []
        observers: list[Observer] = [self.log, *self.settings.observers]
        for observer in reversed(observers):
            ending.callback(self._tell_end, observer)
        return observers

    def _tell_end(self, observer: Observer) -> None:
        observer.on_end(self.finished)

    def _make_step(self, batch: Any, stop: StopRequest) -> tuple[dict[str, float], int, int]:
        """One step; returns losses, images of the step, and a signal that asks to stop (0 for none)."""
        _seed_step(self.model, self.settings.seed, self.step, image_numbers(batch, self.accelerator))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.stage, self.step)
        try:
            parts, norm = self._optimise(batch)
        except torch.OutOfMemoryError:
            raise UserError(
                f"the GPU is full in step {self.step + 1} of stage '{self.stage.name}'",
                remedy=self.settings.out_of_memory(),
            ) from None
        self.step += 1
        # the one time per step that the device is waited for, so that the step's clock is honest
        world, images = self.accelerator.num_processes, len(batch["slices"])
        numbers = summed([*parts.values(), norm, images, stop.number], self.accelerator)
        losses = {name: number / world for name, number in zip(parts, numbers, strict=False)}
        losses["loss"] = sum(losses.values())
        self._judge(losses, numbers[-3] / world, batch)
        return losses, round(numbers[-2]), self._agreed_signal(numbers[-1], stop)

    def _optimise(self, batch: Any) -> tuple[Losses, Tensor]:
        with self.precision.autocast():
            parts = self.compute_losses(self.spread, batch)
        total = torch.stack([part.float() for part in parts.values()]).sum()
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        norm = self.precision.step(total, parameters, self.optimizer, self.settings.clip_norm or math.inf)
        return parts, norm

    def _judge(self, losses: dict[str, float], norm: float, batch: Any) -> None:
        skipped = self.precision.skipped(norm)
        wrong = self.watch.judge(losses["loss"], norm, skipped)
        if wrong is not None:
            slices = [name for part in gather(self.accelerator, batch["slices"]) for name in part]
            if self.accelerator.is_main_process:
                write_failure(self.settings.folder, self.step, losses, slices, wrong)
            raise failed_step(self.stage.name, self.step, losses, slices, wrong)
        if self.average is not None and not skipped:
            self.average.update(self.model, self.step)

    def _agreed_signal(self, total: float, stop: StopRequest) -> int:
        """A signal that reached any process stops all; each names its own, or SIGTERM when it got none."""
        return 0 if total == 0 else stop.number or 15

    def _after_step(self, report: StepReport, observers: list[Observer], signal_number: int) -> None:
        last, every, validate = (
            self.step == self.stage.iterations,
            self.validate_every,
            self.settings.validate,
        )
        scores: dict[str, float] = {}
        if validate is not None and every is not None and (last or self.step % every == 0):
            scores = {"val_ap": self._validate(validate)}
        for observer in observers:
            if hasattr(observer, "note") and observer is not self.log:
                observer.note(**scores)  # goes with what it sends next
            observer.on_step(report, self.model)
        self.log.note(**scores)  # goes into the row of the step just told
        if last or signal_number or self.step % self.trainer.save_every == 0:
            on_main(self.accelerator, self._save)
        if signal_number:
            raise Stopped(signal_number, self.step)

    def _validate(self, validate: Callable[[nn.Module], float]) -> float:
        """Value the present (averaged) weights; the best so far are kept in ``best/``."""
        with ExitStack() as stack:
            if self.average is not None:
                stack.enter_context(self.average.applied(self.model))
            self.model.eval()
            value: float = together(self.accelerator, lambda: validate(self.model))
            best = Best(self.step, value, self.settings.criterion)
            LOGGER.info("stage %s: step %d, %s %.4f", self.stage.name, self.step, best.criterion, value)
            if self.best is None or value > self.best.value:
                self.best = best
                folder = self.settings.folder / BEST_FOLDER
                on_main(self.accelerator, lambda: save_best(folder, self.model, best))
        self.model.train()
        return value

    def _save(self) -> None:
        self.log.write()
        progress = Progress(
            self.step,
            self.settings.made_from,
            metrics_rows=len(self.log.rows),
            metrics_pending=self.log.pending,
            recent_losses=self.watch.recent,
            skipped=self.watch.skipped,
            skipped_in_row=self.watch.skipped_in_row,
            scaler=self.precision.state(),
            best=self.best,
        )
        folder = self.settings.folder / CHECKPOINT_FOLDER
        save_checkpoint(folder, self.model, self.optimizer, progress, self.average)

    def result(self) -> nn.Module:
        """The model with the weights that are to be kept."""
        if self.watch.skipped:
            LOGGER.info("stage %s: fp16 left out %d steps", self.stage.name, self.watch.skipped)
        if self.trainer.select == "best":
            read_model(self.model, self.settings.folder / BEST_FOLDER / MODEL_FILE)
        elif self.average is not None:
            self.average.copy_to(self.model)
        return self.model


def _channels_last(model: nn.Module) -> torch.memory_format:
    """That order of memory for the slices or for the volumes that the model convolves."""
    volumes = any(parameter.dim() == 5 for parameter in model.parameters())
    return torch.channels_last_3d if volumes else torch.channels_last


def _seed_step(model: nn.Module, seed: int, step: int, images: Sequence[int]) -> None:
    number = (seed * 1_000_003 + step) % 2**63
    torch.manual_seed(number)
    seed_samplers(model, number, images)
