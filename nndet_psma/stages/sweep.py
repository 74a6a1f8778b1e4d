"""Stages sweep and consolidate: what is tuned on validation results; folds into one model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import CONSOLIDATED, FINISHED, INFERENCE_PLAN, PLAN, ModelFolder
from nndet_psma.artifacts.plan import Plan
from nndet_psma.artifacts.run_config import RunConfig
from nndet_psma.core.atomic import atomic_folder, remove_leftovers
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.core.lock import FolderLock
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.systems.system import AnySystem, TuneJob, system_of


def silent(line: str) -> None:
    """Where nobody listens."""


def sweep_fold(
    paths: TaskPaths,
    folder: ModelFolder,
    fold: int,
    config: RunConfig[Any, Any],
    say: Callable[[str], None] = silent,
) -> InferencePlan:
    """Predict the fold's validation cases, tune on them, write what was tuned, and the predictions.

    Args:
        paths: of the task.
        folder: the model.
        fold: number.
        config: of the command.
        say: takes one line of progress.

    Raises:
        UserError: the fold is not trained, or a choice makes no sense.
    """
    system = system_of(folder.plan(fold))
    job = TuneJob(paths, folder, config, say)
    system.validate(job, fold)
    return system.tune(job, fold, [fold])


def consolidate(
    paths: TaskPaths | None,
    folder: ModelFolder,
    folds: list[int],
    *,
    config: RunConfig[Any, Any],
    sweep_boxes: bool,
    weights: bool = True,
    say: Callable[[str], None] = silent,
) -> InferencePlan:
    """Copy the folds' weights into one self-contained model, and tune on the validation cases of all of them.

    Every case is predicted by the fold that did not train on it. Without ``weights`` only the plan is copied: enough
    to tune and to evaluate the validation cases, not to predict.

    Raises:
        UserError: a fold is missing or belongs to another plan, or another process does the same.
    """
    with FolderLock(folder.root, "another process makes a consolidated model here"):
        return _consolidate(paths, folder, folds, config, sweep_boxes, weights, say)


def _consolidate(
    paths: TaskPaths | None,
    folder: ModelFolder,
    folds: list[int],
    config: RunConfig[Any, Any],
    sweep_boxes: bool,
    weights: bool,
    say: Callable[[str], None],
) -> InferencePlan:
    plans = {fold: folder.plan(fold) for fold in folds}
    hashes = {fold: plan.content_hash() for fold, plan in plans.items()}
    if len(set(hashes.values())) > 1:
        raise UserError(
            "the folds were trained with different plans",
            file=folder.root,
            found=", ".join(f"fold {fold}: {value}" for fold, value in hashes.items()),
            remedy="Train them again with one plan",
        )
    plan = plans[folds[0]]
    system = system_of(plan)
    target = folder.fold(CONSOLIDATED)
    stages = {step.name for step in system.steps(plan, config.trainer_cfg, folds[0])}
    _copy_folds(system, folder, folds, plan, target, weights, stages)
    if not sweep_boxes or paths is None:
        return InferencePlan.read(target / INFERENCE_PLAN)
    job = TuneJob(paths, folder, config, say)
    for fold in folds:
        system.validate(job, fold)
    return system.tune(job, CONSOLIDATED, folds)


def _copy_folds(
    system: AnySystem,
    folder: ModelFolder,
    folds: list[int],
    plan: Plan,
    target: Path,
    weights: bool,
    stages: set[str],
) -> None:
    """Weights and plan into ``target``; if they are there already, it is kept with its predictions."""
    sources = {fold: system.weights(folder, plan, fold) for fold in folds}
    for fold, files in sources.items():
        for place, source in files.items():
            if not source.is_file():
                stage = Path(place).parent.name
                part = f"stage '{stage}' of fold {fold}" if stage in stages else f"fold {fold}"
                raise UserError(
                    f"{part} is not trained",
                    file=source,
                    remedy=f"Run nndet_train with -o exp.fold={fold}, or consolidate fewer folds with --folds",
                )
    copied = {place: source for files in sources.values() for place, source in files.items()}
    parts: list[Any] = [plan.content_hash(), folds, hash_files(list(copied.values()))]
    made_from = hash_json(parts if weights else [*parts, "no weights"])
    marker = target / FINISHED
    if marker.is_file() and marker.read_text() == made_from:
        return
    remove_leftovers(target.parent)
    with atomic_folder(target) as temporary:
        plan.write(temporary / PLAN)
        for place, source in copied.items() if weights else ():
            (temporary / place).parent.mkdir(parents=True, exist_ok=True)
            system.copy_weights(source, temporary / place)
        system.untuned(plan, folds).write(temporary / INFERENCE_PLAN)
        (temporary / FINISHED).write_text(made_from)
