"""Stages sweep and consolidate: thresholds from validation predictions; folds into one model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import CONSOLIDATED, INFERENCE_PLAN, ModelFolder
from nndet_psma.artifacts.plan import Plan
from nndet_psma.artifacts.raw_predictions import read_raw
from nndet_psma.core.atomic import atomic_folder, remove_leftovers
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.dataset.task.clinical import patient_of, read_clinical
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.inference.postprocessing import make_prediction
from nndet_psma.inference.predictor import choose_device
from nndet_psma.inference.tuning import (
    RAW_FOLDER,
    SweepOptions,
    patient_groups,
    predict_validation,
    tune,
    untuned,
    write_sweep,
)
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.systems.nodeseg.plan import NodeSegPlan

VAL_PREDICTIONS = "val_predictions"
_FINISHED = "finished"  # holds the hash of the weights and the plan


def _silent(line: str) -> None:
    """Where nobody listens."""


def sweep_fold(
    paths: TaskPaths,
    folder: ModelFolder,
    fold: int,
    config: Any,
    say: Callable[[str], None] = _silent,
) -> InferencePlan:
    """Predict the fold's validation cases, tune on them, write thresholds, table and predictions.

    Args:
        paths: of the task.
        folder: the model, of whichever system.
        fold: number.
        config: composed configuration.
        say: takes one line of progress.

    Raises:
        UserError: the fold is not trained, or a choice makes no sense.
    """
    plan = folder.plan(fold)
    if isinstance(plan, NodeSegPlan):
        from nndet_psma.systems.nodeseg.nnunet import sweep as nnunet

        return nnunet.sweep_fold(paths, folder, fold, config, say)
    device = choose_device(config.inference_kwargs.device)
    store = paths.store(plan.data_identifier)
    predict_validation(folder, fold, store, device=device, batch_size=config.inference_kwargs.batch_size)
    return _tune(paths, folder, fold, [fold], sweep_options(config))


def consolidate(
    paths: TaskPaths | None,
    folder: ModelFolder,
    folds: list[int],
    *,
    config: Any,
    sweep_boxes: bool,
    weights: bool = True,
    say: Callable[[str], None] = _silent,
) -> InferencePlan:
    """Copy the folds' weights into one self-contained model, and tune on the validation cases of all of them.

    Every case is predicted by the fold that did not train on it. Without ``weights`` only the plan is copied: enough
    to tune and to evaluate the validation cases, not to predict.

    Raises:
        UserError: a fold is missing or belongs to another plan.
    """
    if folds and isinstance(folder.plan(folds[0]), NodeSegPlan):
        return _consolidate_segmentation(paths, folder, folds, config, sweep_boxes, weights, say)
    plans = {fold: folder.detector_plan(fold) for fold in folds}
    hashes = {fold: plan.content_hash() for fold, plan in plans.items()}
    if len(set(hashes.values())) > 1:
        raise UserError(
            "the folds were trained with different plans",
            file=folder.root,
            found=", ".join(f"fold {fold}: {value}" for fold, value in hashes.items()),
            remedy="Train them again with one plan",
        )
    target = folder.fold(CONSOLIDATED)
    _copy_folds(folder, folds, plans[folds[0]], target, weights)
    if not sweep_boxes or paths is None:
        return InferencePlan.read(target / INFERENCE_PLAN)
    device = choose_device(config.inference_kwargs.device)
    store = paths.store(plans[folds[0]].data_identifier)
    for fold in folds:
        predict_validation(folder, fold, store, device=device, batch_size=config.inference_kwargs.batch_size)
    return _tune(paths, folder, CONSOLIDATED, folds, sweep_options(config))


def _consolidate_segmentation(
    paths: TaskPaths | None,
    folder: ModelFolder,
    folds: list[int],
    config: Any,
    sweep_boxes: bool,
    weights: bool,
    say: Callable[[str], None],
) -> InferencePlan:
    from nndet_psma.systems.nodeseg.nnunet import sweep as nnunet

    if not weights:
        raise UserError(
            "a segmentation model is consolidated with its weights only", remedy="Leave --no_model out"
        )
    return nnunet.consolidate(paths, folder, folds, config, say, sweep_boxes=sweep_boxes)


def sweep_options(config: Any) -> SweepOptions:
    """Section ``sweep`` of the configuration.

    Raises:
        UserError: a value of the wrong kind.
    """
    section = config.sweep
    wrong = [name for name in ("tune_hit_iou", "nested") if not isinstance(section[name], bool)]
    if wrong:
        raise UserError(f"sweep.{wrong[0]} is {section[wrong[0]]!r}", expected="true or false")
    if not isinstance(section.trials, int) or section.trials < 1:
        raise UserError(f"sweep.trials is {section.trials!r}", expected="a number from 1")
    return SweepOptions(
        str(section.criterion or "auto"),
        str(section.search),
        section.tune_hit_iou,
        section.nested,
        section.trials,
    )


def _copy_folds(folder: ModelFolder, folds: list[int], plan: Plan, target: Path, weights: bool) -> None:
    """Weights and plan into ``target``; if they are there already, it is kept with its predictions."""
    sources = {
        (fold, stage.name): folder.weights(fold, stage.name) for fold in folds for stage in plan.stages
    }
    for (fold, name), source in sources.items():
        if not source.is_file():
            raise UserError(
                f"stage '{name}' of fold {fold} is not trained",
                file=source,
                remedy=f"Run nndet_train with -o exp.fold={fold}, or consolidate fewer folds with --folds",
            )
    parts: list[Any] = [plan.content_hash(), folds, hash_files(list(sources.values()))]
    made_from = hash_json(parts if weights else [*parts, "no weights"])
    marker = target / _FINISHED
    if marker.is_file() and marker.read_text() == made_from:
        return
    remove_leftovers(target.parent)
    with atomic_folder(target) as temporary:
        plan.write(temporary / "plan.json")
        for (fold, name), source in sources.items() if weights else ():
            copy = temporary / f"fold{fold}" / name / source.name
            copy.parent.mkdir(parents=True)
            shutil.copyfile(source, copy)
        untuned(plan, folds).write(temporary / INFERENCE_PLAN)
        (temporary / _FINISHED).write_text(made_from)


def _tune(
    paths: TaskPaths, folder: ModelFolder, target_fold: int, folds: list[int], options: SweepOptions
) -> InferencePlan:
    plan = folder.detector_plan(target_fold)
    target = folder.fold(target_fold)
    files = _raw_files(folder, folds)
    groups = _groups(paths, folder, folds)
    tuned, result = tune(files, paths.store(plan.data_identifier), plan, options, folds=folds, groups=groups)
    write_sweep(target / "sweep.json", result)
    tuned.write(target / INFERENCE_PLAN)
    settings = PostprocSettings(**tuned.settings)
    for old in (target / VAL_PREDICTIONS).glob("*_boxes.json"):
        if old.name.removesuffix("_boxes.json") not in tuned.cases:
            old.unlink()  # of a case that another plan validated here
    for file in files:
        prediction = make_prediction(read_raw(file), settings, plan.classes)
        prediction.write(target / VAL_PREDICTIONS / f"{prediction.case_id}_boxes.json")
    return tuned


def _groups(paths: TaskPaths, folder: ModelFolder, folds: list[int]) -> list[list[str]]:
    """Validation cases to be held out in turn: those of each fold, or groups of patients where folds share patients."""
    clinical = read_clinical(paths)
    by_fold = [sorted(folder.plan(fold).folds[fold].val) for fold in folds]
    patients = {case_id: patient_of(case_id, clinical) for cases in by_fold for case_id in cases}
    of_fold = [{patients[case_id] for case_id in cases} for cases in by_fold]
    if len(folds) > 1 and sum(map(len, of_fold)) == len(set().union(*of_fold)):
        return by_fold
    return patient_groups(patients)


def _raw_files(folder: ModelFolder, folds: list[int]) -> list[Path]:
    files = []
    for fold in folds:
        val = folder.plan(fold).folds[fold].val
        files += [folder.fold(fold) / RAW_FOLDER / f"{case_id}.npz" for case_id in val]
    return sorted(files, key=lambda file: file.name)
