"""Trainer of the central system: whole-slice pretraining, then one search-region detector per HU window."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from nndet_psma.artifacts.plan import Detector, Plan, Stage
from nndet_psma.core.atomic import remove_leftovers, write_text
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.logs import LOGGER
from nndet_psma.core.progress import progress_bar
from nndet_psma.core.schema import to_plain
from nndet_psma.models.maskrcnn25d import build_detector
from nndet_psma.models.weights import read_model, read_state, write_model
from nndet_psma.preprocess.store import inputs_hash
from nndet_psma.trainers.batches import SliceBatches
from nndet_psma.trainers.loop import LoopSettings, Losses, train_loop
from nndet_psma.trainers.memory_check import MemoryWatch
from nndet_psma.trainers.mining import hard_negatives, keep_scores, mine, mined_before
from nndet_psma.trainers.registry import TRAINERS, FoldJob
from nndet_psma.trainers.settings import TrainerSettings, adjusted_stage, stages_for

MODEL_FILE = "model.safetensors"
_FINISHED = "finished"
_MAX_WORKERS = 8


@TRAINERS.register
class MaskRCNN25D:
    """Trains the stages of ``psma25d`` (Xu et al. 2023, figure 2)."""

    def train(self, job: FoldJob) -> None:
        """Train every stage of the fold that is not finished; see :class:`FoldJob`."""
        for stage in stages_for(job.plan, job.voter):
            _train_stage(job, adjusted_stage(stage, job.settings))


def load_detector(plan: Plan, stage: Stage, file: Path, device: torch.device) -> nn.Module:
    """The trained detector of a stage, in evaluation mode."""
    detector = _without_weights(plan)
    model = build_detector(detector, plan.channels(stage), len(plan.classes))
    read_model(model, file)
    return model.to(device).eval()


def stage_hash(
    plan: Plan, stage: Stage, fold: int, settings: TrainerSettings, inputs: Sequence[str] = ()
) -> str:
    """Hash of what determines a stage's weights, its ancestors included; ``inputs`` are those of the cases."""
    parent = None
    if stage.start_from is not None:
        ancestor = adjusted_stage(plan.stage(stage.start_from), settings)
        parent = stage_hash(plan, ancestor, fold, settings, inputs)
    run = {k: v for k, v in to_plain(settings).items() if k not in ("num_workers", "save_every", "log_every")}
    names = ("detector", "augmentation", "windows", "scalings", "neighbours", "spacing", "margin_mm", "seed")
    kept = {name: to_plain(getattr(plan, name)) for name in names}
    batch = settings.batch_size or plan.batch_size
    return hash_json(
        [
            kept,
            batch,
            plan.positive_fraction,
            plan.hard_negative_fraction,
            plan.optimizer,
            to_plain(stage),
            plan.folds[fold].train,
            run,
            parent,
            list(inputs),
        ]
    )


def _train_stage(job: FoldJob, stage: Stage) -> None:
    folder = job.folder / stage.name
    if job.overwrite and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    inputs = [inputs_hash(job.store, case_id) for case_id in job.plan.folds[job.fold].train]
    made_from = stage_hash(job.plan, stage, job.fold, job.settings, inputs)
    if _is_finished(folder, made_from):
        LOGGER.info("stage %s: finished before", stage.name)
        return
    LOGGER.info("stage %s: %d iterations on %d cases", stage.name, stage.iterations, len(inputs))
    accelerator = _accelerator(job.settings)
    seed = job.plan.seed if job.settings.seed is None else job.settings.seed
    torch.manual_seed(seed)
    model = _initial_model(job, stage)
    if stage.iterations > 0:
        model = _run_loop(job, stage, model, accelerator, made_from, seed)
    if accelerator.is_main_process:
        write_model(model, folder / MODEL_FILE)
        write_text(folder / _FINISHED, made_from)
        LOGGER.info("stage %s: finished", stage.name)
    accelerator.wait_for_everyone()


def _run_loop(
    job: FoldJob, stage: Stage, model: nn.Module, accelerator: Accelerator, made_from: str, seed: int
) -> nn.Module:
    batch_size = job.settings.batch_size or job.plan.batch_size
    cases = job.plan.folds[job.fold].train
    hard = _hard_negatives(job, stage, accelerator)
    batches = SliceBatches(job.store, job.plan, stage, cases, batch_size, seed, hard)
    folder, precision = job.folder / stage.name, job.settings.precision
    watch = MemoryWatch(job.plan, stage, folder, batch_size, precision, accelerator.device)
    with progress_bar(f"fold {job.fold} {stage.name}", stage.iterations) as advance:

        def on_step(step: int, loss: float) -> None:
            advance(step, f"loss {loss:.3f}")
            watch(step)

        settings = LoopSettings(
            folder=folder,
            made_from=made_from,
            seed=seed,
            workers=_workers(job.settings),
            save_every=job.settings.save_every,
            log_every=job.settings.log_every,
            clip_norm=job.settings.clip_norm,
            optimizer=job.plan.optimizer,
            momentum=job.settings.sgd_momentum,
            weight_decay=job.settings.weight_decay,
            images_per_step=batch_size,
            on_step=on_step,
        )
        return train_loop(model, _detector_losses, batches, stage, settings, accelerator)


def _hard_negatives(job: FoldJob, stage: Stage, accelerator: Accelerator) -> list[str]:
    """Slices that fooled the stage this one starts from; none where it starts from the backbone alone."""
    if stage.start_from is None or job.plan.hard_negative_fraction == 0:
        return []
    parent, folder = job.plan.stage(stage.start_from), job.folder / stage.start_from
    cases = job.plan.folds[job.fold].train
    made_from = hash_json([(folder / _FINISHED).read_text(), stage.region])
    scores = mined_before(folder, made_from)
    if scores is None:
        model = load_detector(job.plan, parent, folder / MODEL_FILE, accelerator.device)
        batch_size = job.settings.batch_size or job.plan.batch_size
        scores = mine(
            model, job.store, cases, job.plan, parent, stage, device=accelerator.device, batch_size=batch_size
        )
        keep_scores(folder, made_from, scores)
    hard = hard_negatives(scores)
    LOGGER.info("stage %s: %d of %d slices without a lesion are hard", stage.name, len(hard), len(scores))
    return hard


def _detector_losses(model: nn.Module, batch: Any) -> Losses:
    losses: Losses = model(list(batch["images"]), batch["targets"])
    return losses


def _initial_model(job: FoldJob, stage: Stage) -> nn.Module:
    """The stage's detector with the weights it starts from."""
    if stage.start_from is None:
        return build_detector(job.plan.detector, job.plan.channels(stage), len(job.plan.classes))
    file = job.folder / stage.start_from / MODEL_FILE
    model = build_detector(_without_weights(job.plan), job.plan.channels(stage), len(job.plan.classes))
    if job.plan.channels(job.plan.stage(stage.start_from)) == job.plan.channels(stage):
        read_model(model, file)
        return model
    return _with_widened_input(model, file)


def _with_widened_input(model: nn.Module, file: Path) -> nn.Module:
    """Parent weights with the first convolution repeated to more channels at equal response."""
    state, own = read_state(file), model.state_dict()
    for name, tensor in state.items():
        if name in own and tensor.ndim == 4 and tensor.shape[1] != own[name].shape[1]:
            channels = own[name].shape[1]
            mean = tensor.mean(dim=1, keepdim=True) * tensor.shape[1] / channels
            state[name] = mean.expand(-1, channels, -1, -1).contiguous()
    model.load_state_dict(state)
    return model


def _without_weights(plan: Plan) -> Detector:
    return replace(plan.detector, weights="none")


def _is_finished(folder: Path, made_from: str) -> bool:
    marker = folder / _FINISHED
    if not marker.is_file() or not (folder / MODEL_FILE).is_file():
        return False
    if marker.read_text() != made_from:
        raise UserError(
            "was trained from another plan, fold, configuration or data",
            file=folder,
            remedy="Start over with -o train.mode=overwrite, or train under another name with -o exp.tag=_NAME",
        )
    return True


def _accelerator(settings: TrainerSettings) -> Accelerator:
    if settings.precision != "no" and not torch.cuda.is_available():
        raise UserError(
            f"mixed precision {settings.precision} needs a GPU",
            remedy="Leave trainer_cfg.precision at no on CPU",
        )
    accelerator = Accelerator(mixed_precision=settings.precision)
    if accelerator.num_processes > 1:
        raise UserError(
            f"started on {accelerator.num_processes} processes, but a stage trains on one so far",
            remedy="Start without the launcher; folds and voters can run side by side on several GPUs",
        )
    return accelerator


def _workers(settings: TrainerSettings) -> int:
    if settings.num_workers is not None:
        return settings.num_workers
    return min(_MAX_WORKERS, max(0, (os.cpu_count() or 1) - 1))
