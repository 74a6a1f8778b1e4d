"""Trainer of the central system: whole-slice pretraining, then one search-region detector per HU window."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from nndet_psma.artifacts.plan import Plan, Stage
from nndet_psma.core.atomic import remove_leftovers, write_text
from nndet_psma.core.detections import Detections
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.logs import LOGGER
from nndet_psma.models.slices import predict_region
from nndet_psma.models.weights import write_model
from nndet_psma.planners.memory import Training
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.region import stage_region
from nndet_psma.preprocess.store import inputs_hash
from nndet_psma.trainers.batches import SliceBatches
from nndet_psma.trainers.checkpoint import MODEL_FILE
from nndet_psma.trainers.distributed import gather, global_means, join_processes, on_main, together
from nndet_psma.trainers.identity import stage_hash
from nndet_psma.trainers.lock import FolderLock
from nndet_psma.trainers.loop import LoopSettings, Losses, train_loop
from nndet_psma.trainers.memory_check import what_to_lower
from nndet_psma.trainers.mining import hard_negatives, keep_scores, mine, mined_before
from nndet_psma.trainers.precision import check_precision
from nndet_psma.trainers.registry import TRAINERS, FoldJob
from nndet_psma.trainers.selection import CRITERION, SliceHits, find_slice_hits
from nndet_psma.trainers.settings import adjusted_stage, stages_for
from nndet_psma.trainers.starting import load_detector, starting_detector
from nndet_psma.trainers.trackers import tracker_arguments
from nndet_psma.trainers.watching import stage_observers

__all__ = ["MODEL_FILE", "MaskRCNN25D", "load_detector", "stage_hash"]
_FINISHED = "finished"
_MAX_WORKERS = 8
_OTHER = "Start over with -o train.mode=overwrite, or train under another name with -o exp.tag=_NAME"


@TRAINERS.register
class MaskRCNN25D:
    """Trains the stages of ``psma25d`` (Xu et al. 2023, figure 2)."""

    def train(self, job: FoldJob) -> None:
        """Train every stage of the fold that is not finished; see :class:`FoldJob`."""
        for stage in stages_for(job.plan, job.voter):
            _train_stage(job, adjusted_stage(stage, job.settings))

    def load(self, plan: Plan, stage: Stage, file: Path, device: torch.device) -> nn.Module:
        """See :func:`nndet_psma.trainers.starting.load_detector`."""
        return load_detector(plan, stage, file, device)

    def predict(
        self,
        models: Sequence[nn.Module],
        case: PreparedCase,
        plan: Plan,
        stage: Stage,
        *,
        device: torch.device,
        batch_size: int,
        mirrored: bool,
    ) -> list[Detections]:
        """2D boxes; the slices of the case are prepared once for all models."""
        region = stage_region(case, plan, stage)
        return predict_region(
            models, case, plan, stage, region, device=device, batch_size=batch_size, mirrored=mirrored
        )


@dataclass(frozen=True)
class _Run:
    """One stage on its way; the lock is held by the main process."""

    job: FoldJob
    stage: Stage
    accelerator: Accelerator
    lock: FolderLock
    made_from: str

    @property
    def folder(self) -> Path:
        return self.job.folder / self.stage.name

    @property
    def seed(self) -> int:
        return self.job.plan.seed if self.job.settings.seed is None else self.job.settings.seed

    @property
    def batch_size(self) -> int:
        return self.job.settings.batch_size or self.job.plan.batch_size

    @property
    def images(self) -> int:
        """Slices per step of one process, at most."""
        return -(-self.batch_size // self.accelerator.num_processes)

    @property
    def training(self) -> Training:
        settings = self.job.settings
        gpus = self.accelerator.num_processes
        return Training(self.job.plan.optimizer, settings.precision, settings.ema_decay is not None, gpus)

    def share(self, case_ids: list[str]) -> list[str]:
        """Cases that this process looks at."""
        return case_ids[self.accelerator.process_index :: self.accelerator.num_processes]


def _train_stage(job: FoldJob, stage: Stage) -> None:
    folder = job.folder / stage.name
    inputs = [inputs_hash(job.store, case_id) for case_id in _cases_read(job)]
    made_from = stage_hash(job.plan, stage, job.fold, job.settings, inputs)
    if not job.overwrite and _is_finished(folder, made_from):
        LOGGER.info("stage %s: finished before", stage.name)
        return
    check_precision(job.settings.precision)
    batch_size = job.settings.batch_size or job.plan.batch_size
    accelerator = join_processes(batch_size, **tracker_arguments(job.settings.trackers, folder))
    run = _Run(job, stage, accelerator, FolderLock(folder), made_from)
    on_main(accelerator, lambda: _open_folder(run))
    try:
        LOGGER.info("stage %s: %d iterations on %d cases", stage.name, stage.iterations, len(inputs))
        torch.manual_seed(run.seed)
        model = together(accelerator, lambda: _initial_model(run))
        if stage.iterations > 0:
            model = _run_loop(run, model)
        on_main(accelerator, lambda: _finish(run, model))
        _mine_for_children(run)
    finally:
        run.lock.release()


def _cases_read(job: FoldJob) -> list[str]:
    fold = job.plan.folds[job.fold]
    return [*fold.train, *fold.val] if job.settings.select == "best" else fold.train


def _open_folder(run: _Run) -> None:
    """Lock the folder, then clear what an interrupted run, or with overwrite any run, left."""
    run.lock.acquire()
    if run.job.overwrite:
        for path in run.folder.iterdir():
            if path != run.lock.file:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    remove_leftovers(run.folder)


def _finish(run: _Run, model: nn.Module) -> None:
    write_model(model, run.folder / MODEL_FILE)
    write_text(run.folder / _FINISHED, run.made_from)
    LOGGER.info("stage %s: finished", run.stage.name)


def _initial_model(run: _Run) -> nn.Module:
    """The stage's detector with the weights of the stage before, of the user, or of the plan."""
    job, stage = run.job, run.stage
    if stage.start_from is not None:
        return starting_detector(job.plan, stage, job.folder / stage.start_from / MODEL_FILE)
    own = job.settings.start_weights
    return starting_detector(job.plan, stage, None if own is None else Path(own))


def _run_loop(run: _Run, model: nn.Module) -> nn.Module:
    job, stage, accelerator = run.job, run.stage, run.accelerator
    hard = _hard_negatives(run)
    batches = together(accelerator, lambda: SliceBatches(
        job.store, job.plan, stage, job.plan.folds[job.fold].train, run.batch_size, run.seed, hard
    ))  # fmt: skip
    if job.settings.compile:
        model.get_submodule("backbone.body").compile()  # in place: names of weights stay
    return train_loop(model, _DetectorLosses(accelerator), batches, stage, _loop_settings(run), accelerator)


def _loop_settings(run: _Run) -> LoopSettings:
    settings, device = run.job.settings, run.accelerator.device
    every = settings.validation_steps(run.stage.iterations)
    on_gpu = device.type == "cuda"
    return LoopSettings(
        folder=run.folder,
        made_from=run.made_from,
        seed=run.seed,
        workers=loader_workers(settings.num_workers),
        save_every=settings.save_every,
        log_every=settings.log_every,
        clip_norm=settings.clip_norm,
        optimizer=run.job.plan.optimizer,
        momentum=settings.sgd_momentum,
        weight_decay=settings.weight_decay,
        precision=settings.precision,
        ema_decay=settings.ema_decay,
        channels_last=on_gpu if settings.channels_last is None else settings.channels_last,
        observers=_observers(run),
        validate=None if every is None else lambda model: _validation_value(run, model),
        validate_every=every or 1,
        select=settings.select,
        criterion=CRITERION,
        out_of_memory=lambda: _remedy_for_full_gpu(run),
    )


def _observers(run: _Run) -> list[Any]:
    if not run.accelerator.is_main_process:
        return []
    return [run.lock, *stage_observers(run.job, run.stage, run.accelerator, run.images, run.training)]


def _hard_negatives(run: _Run) -> list[str]:
    """Slices that fooled the stage this one starts from; none where it starts from the backbone alone."""
    job, stage = run.job, run.stage
    if stage.start_from is None or job.plan.hard_negative_fraction == 0:
        return []
    folder = job.folder / stage.start_from
    made_from = hash_json([(folder / _FINISHED).read_text(), stage.region])
    # all or none mine, whatever each of them sees on a slow file system
    known = gather(run.accelerator, mined_before(folder, made_from))
    scores: dict[str, float] | None = known[0]
    if scores is None:
        mined = gather(run.accelerator, together(run.accelerator, lambda: _mine_share(run)))
        scores = {name: score for part in mined for name, score in part.items()}
        kept = scores
        on_main(run.accelerator, lambda: keep_scores(folder, made_from, kept))
    hard = hard_negatives(scores)
    LOGGER.info("stage %s: %d of %d slices without a lesion are hard", stage.name, len(hard), len(scores))
    return hard


def _mine_for_children(run: _Run) -> None:
    """Mine once for all stages that start from this one: they may be trained side by side."""
    children = [stage for stage in run.job.plan.stages if stage.start_from == run.stage.name]
    for child in {stage.region: stage for stage in children}.values():
        _hard_negatives(replace(run, stage=child))


def _mine_share(run: _Run) -> dict[str, float]:
    job, device = run.job, run.accelerator.device
    parent = job.plan.stage(str(run.stage.start_from))
    model = load_detector(job.plan, parent, job.folder / parent.name / MODEL_FILE, device)
    cases = run.share(job.plan.folds[job.fold].train)
    return mine(
        model, job.store, cases, job.plan, parent, run.stage,
        device=device, batch_size=run.images, advance=run.lock.beat,
    )  # fmt: skip


def _validation_value(run: _Run, model: nn.Module) -> float:
    """Average precision on the fold's validation cases, of which every process predicts its share."""
    job = run.job
    own = find_slice_hits(
        model, job.store, run.share(job.plan.folds[job.fold].val), job.plan, run.stage,
        device=run.accelerator.device, batch_size=run.images, advance=run.lock.beat,
    )  # fmt: skip
    total = SliceHits.none(len(job.plan.classes))
    for part in gather(run.accelerator, own):
        total.add(part)
    value = total.average_precision()
    if value is None:
        raise UserError(
            f"no validation case of fold {job.fold} has a lesion in the region of stage '{run.stage.name}'",
            remedy="Select the last weights with trainer_cfg.select=last and trainer_cfg.validate_every=null",
        )
    return value


class _DetectorLosses:
    """Losses of a torchvision detector, weighted by the boxes that each process drew."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator

    def __call__(self, model: nn.Module, batch: Any) -> Losses:
        losses: Losses = model(list(batch["images"]), batch["targets"])
        if self.accelerator.num_processes == 1:
            return losses
        plain: Any = self.accelerator.unwrap_model(model)
        anchors, boxes = plain.rpn.fg_bg_sampler, plain.roi_heads.fg_bg_sampler
        counts = {
            "loss_objectness": anchors.drawn,
            "loss_rpn_box_reg": anchors.drawn,
            "loss_classifier": boxes.drawn,
            "loss_box_reg": boxes.drawn,
            "loss_mask": boxes.positives,
        }
        return global_means(losses, counts, self.accelerator)


def _remedy_for_full_gpu(run: _Run) -> str:
    device = run.accelerator.device
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    return what_to_lower(run.job.plan, run.stage, run.images, run.training, total / 1e9, max(0, others) / 1e9)


def _is_finished(folder: Path, made_from: str) -> bool:
    marker = folder / _FINISHED
    if not marker.is_file() or not (folder / MODEL_FILE).is_file():
        return False
    if marker.read_text() != made_from:
        raise UserError(
            "was trained from another plan, fold, configuration or data", file=folder, remedy=_OTHER
        )
    return True


def loader_workers(wanted: int | None) -> int:
    """Loader processes of this process: ``wanted``, at most its cores; None: its cores less one, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if wanted is None:
        return min(_MAX_WORKERS, cores - 1)
    if wanted > cores:
        LOGGER.warning(
            "trainer_cfg.num_workers=%d, but each training process has %d cores: %d are used",
            wanted,
            cores,
            cores,
        )
    return min(wanted, cores)
