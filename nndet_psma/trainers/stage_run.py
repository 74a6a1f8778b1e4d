"""How the stages of a fold are run, whatever is trained: lock, resume, marker of the end, the loop and its settings."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.core.atomic import remove_leftovers, write_text
from nndet_psma.core.errors import UserError
from nndet_psma.core.lock import FolderLock
from nndet_psma.core.logs import LOGGER
from nndet_psma.planners.training_memory import Training
from nndet_psma.preprocess.store import inputs_hash
from nndet_psma.trainers.checkpoint import MODEL_FILE
from nndet_psma.trainers.distributed import gather, global_means, join_processes, on_main, together
from nndet_psma.trainers.identity import stage_hash
from nndet_psma.trainers.loop import LoopSettings, Losses, train_loop
from nndet_psma.trainers.networks.weights import write_model
from nndet_psma.trainers.observer import Observer, StepReport
from nndet_psma.trainers.precision import check_precision
from nndet_psma.trainers.registry import FoldJob
from nndet_psma.trainers.selection import BoxHits
from nndet_psma.trainers.settings import adjusted_stage, stages_for
from nndet_psma.trainers.watch.trackers import tracker_arguments

FINISHED_FILE = "finished"
_MAX_WORKERS = 8
_OTHER = "Start over with -o train.mode=overwrite, or train under another name with -o exp.tag=_NAME"


@dataclass(frozen=True)
class StageRun:
    """One stage on its way; the lock is held by the main process.

    Attributes:
        job: of the fold.
        stage: as adjusted by the settings.
        accelerator: device and processes.
        lock: of the stage's folder.
        made_from: hash of everything that determines the weights.
    """

    job: FoldJob
    stage: Stage
    accelerator: Accelerator
    lock: FolderLock
    made_from: str

    @property
    def folder(self) -> Path:
        """Of the stage."""
        return self.job.folder / self.stage.name

    @property
    def seed(self) -> int:
        """Of all draws."""
        return self.job.plan.seed if self.job.settings.seed is None else self.job.settings.seed

    @property
    def batch_size(self) -> int:
        """Images per step over all processes."""
        return self.job.settings.batch_size or self.job.plan.batch_size

    @property
    def images(self) -> int:
        """Images per step of one process, at most."""
        processes: int = self.accelerator.num_processes
        return -(-self.batch_size // processes)

    @property
    def training(self) -> Training:
        """What takes memory besides the network."""
        settings = self.job.settings
        gpus = self.accelerator.num_processes
        return Training(self.job.plan.optimizer, settings.precision, settings.ema_decay is not None, gpus)

    @property
    def start(self) -> Path | None:
        """Weights the stage starts from: of the stage before, or of the user; None for those of the plan."""
        if self.stage.start_from is not None:
            return self.job.folder / self.stage.start_from / MODEL_FILE
        own = self.job.settings.start_weights
        return None if own is None else Path(own)

    @property
    def train_cases(self) -> list[str]:
        """Training cases of the fold."""
        return self.job.plan.folds[self.job.fold].train

    @property
    def validation_share(self) -> list[str]:
        """Validation cases that this process looks at."""
        return self.share(self.job.plan.folds[self.job.fold].val)

    def share(self, case_ids: list[str]) -> list[str]:
        """Cases that this process looks at."""
        return case_ids[self.accelerator.process_index :: self.accelerator.num_processes]


@dataclass(frozen=True)
class _Heartbeat:
    """An observer that says at every step that the holder of the lock lives."""

    lock: FolderLock

    def on_step(self, report: StepReport, model: nn.Module) -> None:
        self.lock.beat()

    def on_end(self, finished: bool) -> None:
        """The lock is held longer than the loop runs."""


class StageSystem(ABC):
    """What a system gives to the running of its stages; every method is called on all processes.

    Attributes:
        criterion: what validation measures, for ``best/best.json``.
    """

    criterion: str

    @abstractmethod
    def model(self, run: StageRun) -> nn.Module:
        """The model with the weights it starts from (``run.start``)."""

    @abstractmethod
    def batches(self, run: StageRun) -> Any:
        """Item ``i`` is the batch of step ``i``, ``part(i, rank, world)`` that of one process."""

    @abstractmethod
    def counts(self, model: nn.Module) -> dict[str, int]:
        """By loss, over how many boxes of this process it is a mean, after a forward pass."""

    @abstractmethod
    def find_hits(self, run: StageRun, model: nn.Module) -> BoxHits:
        """What the model, in evaluation mode, finds in ``run.validation_share``."""

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        """Parts of the loss of a batch."""
        parts: Losses = model(list(batch["images"]), batch["targets"])
        return parts

    def observers(self, run: StageRun) -> Sequence[Observer]:
        """Who watches, on the main process."""
        return ()

    def remedy(self, run: StageRun) -> str:
        """What to lower when the GPU is full."""
        return "Lower trainer_cfg.batch_size"

    def compile(self, model: nn.Module) -> None:
        """Compile what is worth it, in place: names of weights stay."""
        model.compile()

    def after(self, run: StageRun) -> None:  # noqa: B027
        """Called when the stage is finished, such as for what its children need."""


def train_stages(job: FoldJob, system: StageSystem) -> None:
    """Train every stage of the fold that is not finished.

    Raises:
        UserError: another training runs in the folder, the folder belongs to something else, or the training failed.
    """
    for stage in stages_for(job.plan, job.voter):
        _train_stage(job, adjusted_stage(stage, job.settings), system)


def _train_stage(job: FoldJob, stage: Stage, system: StageSystem) -> None:
    folder = job.folder / stage.name
    inputs = [inputs_hash(job.store, case_id) for case_id in _cases_read(job)]
    made_from = stage_hash(job.plan, stage, job.fold, job.settings, inputs)
    if not job.overwrite and _is_finished(folder, made_from):
        LOGGER.info("stage %s: finished before", stage.name)
        return
    check_precision(job.settings.precision)
    batch_size = job.settings.batch_size or job.plan.batch_size
    accelerator = join_processes(batch_size, **tracker_arguments(job.settings.trackers, folder))
    run = StageRun(job, stage, accelerator, FolderLock(folder), made_from)
    on_main(accelerator, lambda: _open_folder(run))
    try:
        LOGGER.info("stage %s: %d iterations on %d cases", stage.name, stage.iterations, len(inputs))
        torch.manual_seed(run.seed)
        model = together(accelerator, lambda: system.model(run))
        if stage.iterations > 0:
            model = _run_loop(run, model, system)
        on_main(accelerator, lambda: _finish(run, model))
        system.after(run)
    finally:
        run.lock.release()


def _cases_read(job: FoldJob) -> list[str]:
    fold = job.plan.folds[job.fold]
    return [*fold.train, *fold.val] if job.settings.select == "best" else fold.train


def _open_folder(run: StageRun) -> None:
    """Lock the folder, then clear what an interrupted run, or with overwrite any run, left."""
    run.lock.acquire()
    if run.job.overwrite:
        for path in run.folder.iterdir():
            if path != run.lock.file:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    remove_leftovers(run.folder)


def _finish(run: StageRun, model: nn.Module) -> None:
    write_model(model, run.folder / MODEL_FILE)
    write_text(run.folder / FINISHED_FILE, run.made_from)
    LOGGER.info("stage %s: finished", run.stage.name)


def _run_loop(run: StageRun, model: nn.Module, system: StageSystem) -> nn.Module:
    batches = system.batches(run)
    if run.job.settings.compile:
        system.compile(model)

    def compute_losses(wrapped: nn.Module, batch: Any) -> Losses:
        losses = system.losses(wrapped, batch)
        if run.accelerator.num_processes == 1:
            return losses
        # what every process drew weighs as much as in one process with the whole batch
        counts = system.counts(run.accelerator.unwrap_model(wrapped))
        return global_means(losses, counts, run.accelerator)

    settings = _loop_settings(run, system)
    return train_loop(model, compute_losses, batches, run.stage, settings, run.accelerator)


def _loop_settings(run: StageRun, system: StageSystem) -> LoopSettings:
    settings = run.job.settings
    every = settings.validation_steps(run.stage.iterations)
    on_gpu = run.accelerator.device.type == "cuda"
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
        observers=_observers(run, system),
        validate=None if every is None else lambda model: _validation_value(run, system, model),
        validate_every=every or 1,
        select=settings.select,
        criterion=system.criterion,
        out_of_memory=lambda: system.remedy(run),
    )


def _observers(run: StageRun, system: StageSystem) -> list[Observer]:
    if not run.accelerator.is_main_process:
        return []
    return [_Heartbeat(run.lock), *system.observers(run)]


def _validation_value(run: StageRun, system: StageSystem, model: nn.Module) -> float:
    """Average precision on the fold's validation cases, of which every process predicts its share."""
    total = BoxHits.none(len(run.job.plan.classes))
    for part in gather(run.accelerator, system.find_hits(run, model)):
        total.add(part)
    value = total.average_precision()
    if value is None:
        raise UserError(
            f"no validation case of fold {run.job.fold} has a lesion in the region of stage '{run.stage.name}'",
            remedy="Select the last weights with trainer_cfg.select=last and trainer_cfg.validate_every=null",
        )
    return value


def _is_finished(folder: Path, made_from: str) -> bool:
    marker = folder / FINISHED_FILE
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
