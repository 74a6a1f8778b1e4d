"""Stage import-model: a model from a zip of export-model, checked before any of it is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import (
    CONSOLIDATED,
    INFERENCE_PLAN,
    PLAN,
    ModelFolder,
    task_folder_name,
)
from nndet_psma.artifacts.model_manifest import TASK_NAME, ModelManifest
from nndet_psma.artifacts.plan_file import read_plan
from nndet_psma.core.atomic import atomic_folder, remove_leftovers
from nndet_psma.core.errors import UserError
from nndet_psma.core.lock import FolderLock
from nndet_psma.dataset.task.paths import models_root
from nndet_psma.systems.exchange import manifest_of, take_in_archive
from nndet_psma.systems.system import system_of


@dataclass(frozen=True)
class ImportJob:
    """What to import.

    Attributes:
        archive: the zip.
        task: number or name of an existing task, or ``TaskXXX_Name``; None takes the sender's.
        target: model folder to make instead of one in ``$det_models``.
        force: take the place of a consolidated model that is there.
    """

    archive: Path
    task: str | None = None
    target: Path | None = None
    force: bool = False


def import_model(job: ImportJob) -> tuple[ModelFolder, ModelManifest]:
    """Unpack into ``<model folder>/consolidated``, which appears whole or not at all; folds beside it stay.

    Every detector is built and given its weights once, so that a model that was imported can predict.

    Raises:
        UserError: the archive is refused, or a consolidated model is there already.
    """
    manifest = manifest_of(job.archive)
    folder = ModelFolder(job.target or models_root() / _task_folder(job.task, manifest) / manifest.model)
    with FolderLock(folder.root, "another process makes a consolidated model here"):
        _unpack(job, folder.fold(CONSOLIDATED))
    return folder, manifest


def _unpack(job: ImportJob, target: Path) -> None:
    if target.exists() and not job.force:
        raise UserError(
            "a model is there already",
            file=target,
            remedy="Replace it with --force, or import elsewhere with -o FOLDER",
        )
    remove_leftovers(target.parent, target.name)
    with atomic_folder(target) as temporary:
        unpacked = temporary / target.name  # as a model that can be opened
        take_in_archive(job.archive, unpacked)
        _check_weights(unpacked)
        for path in sorted(unpacked.iterdir()):
            path.rename(temporary / path.name)
        unpacked.rmdir()


def _task_folder(task: str | None, manifest: ModelManifest) -> str:
    if task is None:
        return manifest.task
    try:
        return task_folder_name(task)
    except UserError:
        if TASK_NAME.fullmatch(task):
            return task
        raise UserError(
            f"no task '{task}'",
            expected=f"one that exists, or a new folder name such as {manifest.task}",
        ) from None


def _check_weights(folder: Path) -> None:
    """Build every network with its weights; the first that does not fit is named."""
    plan, folds = read_plan(folder / PLAN), InferencePlan.read(folder / INFERENCE_PLAN).folds
    system_of(plan).check_weights(folder, plan, folds)
