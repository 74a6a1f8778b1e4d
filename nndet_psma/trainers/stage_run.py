"""How the stages of a fold are run, whatever is trained: lock, resume, marker of the end, the loop and its settings."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.core.atomic import read_json, remove_leftovers, write_json, write_text
from nndet_psma.core.errors import UserError
from nndet_psma.core.lock import FolderLock
from nndet_psma.core.logs import LOGGER
from nndet_psma.trainers.checkpoint import CHECKPOINT_FOLDER, MODEL_FILE
from nndet_psma.trainers.distributed import global_means, join_processes, on_main, together
from nndet_psma.trainers.identity import IDENTITY_FILE, identity_hash, stage_identity, told_changes
from nndet_psma.trainers.loop import LoopSettings, Losses, train_loop
from nndet_psma.trainers.networks.weights import write_model
from nndet_psma.trainers.observer import Observer, StepReport
from nndet_psma.trainers.precision import check_precision
from nndet_psma.trainers.registry import SP, FoldJob
from nndet_psma.trainers.settings import adjusted_stage, stages_for
from nndet_psma.trainers.stage_system import StageRun, StageSystem
from nndet_psma.trainers.watch.trackers import tracker_arguments
from nndet_psma.trainers.watch.watching import stage_observers

FINISHED_FILE = "finished"
_ELSE = "was trained from another plan, fold, configuration or data"
_OTHER = "Start over with -o train.mode=overwrite, or train under another name with -o exp.tag=_NAME"


@dataclass(frozen=True)
class _Heartbeat:
    """An observer that says at every step that the holder of the lock lives."""

    lock: FolderLock

    def on_step(self, report: StepReport, model: nn.Module) -> None:
        self.lock.beat()

    def on_end(self, finished: bool) -> None:
        """The lock is held longer than the loop runs."""


def train_stages(job: FoldJob[SP], system: StageSystem[SP]) -> None:
    """Train every stage of the fold that is not finished.

    Raises:
        UserError: another training runs in the folder, the folder belongs to something else, or the training failed.
    """
    for stage in stages_for(job.plan, job.voter):
        _train_stage(job, adjusted_stage(stage, job.settings), system)


def _train_stage(job: FoldJob[SP], stage: Stage, system: StageSystem[SP]) -> None:
    folder = job.folder / stage.name
    inputs = system.inputs(job, _cases_read(job))
    identity = stage_identity(job.plan, stage, job.fold, job.settings, inputs)
    made_from = identity_hash(identity)
    if not job.overwrite:
        _check_identity(folder, identity)
    if not job.overwrite and _is_finished(folder, made_from):
        LOGGER.info("stage %s: finished before", stage.name)
        return
    check_precision(job.settings.precision)
    batch_size = job.settings.batch_size or job.plan.batch_size
    accelerator = join_processes(batch_size, **tracker_arguments(job.settings.trackers, folder))
    run = StageRun(job, stage, accelerator, FolderLock(folder), made_from)
    on_main(accelerator, lambda: _open_folder(run, identity))
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


def _cases_read(job: FoldJob[SP]) -> list[str]:
    fold = job.plan.folds[job.fold]
    return [*fold.train, *fold.val] if job.settings.select == "best" else fold.train


def _open_folder(run: StageRun[SP], identity: dict[str, Any]) -> None:
    """Lock the folder, clear what an interrupted (with overwrite: any) run left; note what is trained from what."""
    run.lock.acquire()
    if run.job.overwrite:
        for path in run.folder.iterdir():
            if path != run.lock.file:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    remove_leftovers(run.folder)
    write_json(run.folder / IDENTITY_FILE, identity)


def _finish(run: StageRun[SP], model: nn.Module) -> None:
    write_model(model, run.folder / MODEL_FILE)
    write_text(run.folder / FINISHED_FILE, run.made_from)
    LOGGER.info("stage %s: finished", run.stage.name)


def _run_loop(run: StageRun[SP], model: nn.Module, system: StageSystem[SP]) -> nn.Module:
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


def _loop_settings(run: StageRun[SP], system: StageSystem[SP]) -> LoopSettings:
    plan, clip_norm = run.job.plan, run.job.settings.clip_norm
    return LoopSettings(
        folder=run.folder,
        made_from=run.made_from,
        seed=run.seed,
        trainer=run.job.settings,
        optimizer=plan.optimizer,
        clip_norm=plan.clip_norm if clip_norm is None else clip_norm,
        norm_decay=plan.norm_decay,
        observers=_observers(run, system),
        validate=lambda model: system.value(run, model),
        criterion=system.criterion,
        out_of_memory=lambda: system.remedy(run),
    )


def _observers(run: StageRun[SP], system: StageSystem[SP]) -> list[Observer]:
    if not run.accelerator.is_main_process:
        return []
    return [_Heartbeat(run.lock), *stage_observers(run, system.load(run), system.pictures(run))]


def _check_identity(folder: Path, identity: dict[str, Any]) -> None:
    """Refuse to go on with a stage that was begun from something else; old folders are judged by their hash alone."""
    file = folder / IDENTITY_FILE
    begun = (folder / FINISHED_FILE).is_file() or (folder / CHECKPOINT_FOLDER).is_dir()
    if not (begun and file.is_file()):
        return
    changes = told_changes(read_json(file), json.loads(json.dumps(identity)))
    if changes:
        raise UserError(_ELSE, file=folder, found=changes, remedy=_OTHER)


def _is_finished(folder: Path, made_from: str) -> bool:
    marker = folder / FINISHED_FILE
    if not marker.is_file() or not (folder / MODEL_FILE).is_file():
        return False
    if marker.read_text() != made_from:
        raise UserError(_ELSE, file=folder, remedy=_OTHER)
    return True
