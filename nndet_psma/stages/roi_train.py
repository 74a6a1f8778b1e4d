"""Train a segmenter of an organ or search region on the cases of a task that have its mask, with nnU-Net."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.plan import Plan
from nndet_psma.artifacts.run_config import RunConfig
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.roi.organ_masks import SEGMENTER, KnownMasks, known_masks
from nndet_psma.roi.organ_model import write_manifest
from nndet_psma.roi.organ_task import OrganTask, write_organ_task
from nndet_psma.stages.prep import prepare_task
from nndet_psma.stages.train import folds_to_train, train_fold
from nndet_psma.systems.system import SYSTEMS


@dataclass(frozen=True)
class RoiTraining:
    """What to train on.

    Attributes:
        name: of the mask, capital letters.
        masks: folder of the masks; None takes the task's modality of that name.
        labels: numbers of the structures, where masks are numbered and their headers do not tell.
        images: names of the modalities to look at; None takes all but the mask and the CTV.
        processes: of fingerprint, export and preprocessing.
    """

    name: str
    masks: Path | None = None
    labels: Mapping[str, int] | None = None
    images: Sequence[str] | None = None
    processes: int = 1


def train_roi(
    paths: TaskPaths,
    models: Path,
    config: RunConfig[Any, Any],
    job: RoiTraining,
    say: Callable[[str], None],
) -> ModelFolder:
    """Prepare the masks as a task of their own and train folds; goes on where an earlier call ended.

    Args:
        paths: of the task.
        models: ``$det_models``; the model is ``TASK/`` and ``config.exp.id``.
        config: composed for the segmenter.
        job: what to train on.
        say: takes one line of progress.

    Raises:
        UserError: too few masks, no such fold, or what is there was planned or trained otherwise.
    """
    description = read_description(paths.root)
    masks = known_masks(paths, description, job.name, job.masks, job.labels)
    organ = write_organ_task(paths, description, masks, job.images, say)
    _tell(organ, masks, say)
    prepared = prepare_task(
        organ.paths,
        SYSTEMS[SEGMENTER](),
        config,
        full_check=False,
        check=False,
        processes=job.processes,
        preprocessing_processes=job.processes,
        say=say,
    )
    plan = prepared.plan
    folder = ModelFolder(models / paths.name / config.exp.id)
    for fold in folds_to_train(config, plan):
        _check_fold(plan, fold, organ)
        say(f"fold {fold}: training {config.exp.id}")
        folder = train_fold(organ.paths, models, config, fold, say)
        write_manifest(folder.fold(fold), job.name, plan, fold, organ.patients)
    return folder


def _tell(organ: OrganTask, masks: KnownMasks, say: Callable[[str], None]) -> None:
    patients = len(set(organ.patients.values()))
    say(f"{len(organ.patients)} cases of {patients} patients have a mask {masks.name}")
    if organ.without:
        shown = ", ".join(organ.without[:5]) + (" ..." if len(organ.without) > 5 else "")
        say(f"{len(organ.without)} have none and are left out: {shown}")


def _check_fold(plan: Plan, fold: int, organ: OrganTask) -> None:
    """A fold beyond the plan is refused by the training itself."""
    cases = plan.folds[fold].train if 0 <= fold < len(plan.folds) else []
    gone = sorted(set(cases) - set(organ.patients))
    if gone:
        raise UserError(
            f"case {gone[0]} of the plan has no mask any more", remedy="Plan anew with -o prep.overwrite=true"
        )
