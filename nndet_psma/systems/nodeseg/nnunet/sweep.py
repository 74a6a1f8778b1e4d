"""Thresholds of a segmentation model from its validation cases; its folds as one self-contained model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import CONSOLIDATED, INFERENCE_PLAN, PLAN, ModelFolder
from nndet_psma.artifacts.plan import Plan
from nndet_psma.artifacts.raw_predictions import is_current, read_raw, write_raw
from nndet_psma.boxes.box import boxes_from_instances
from nndet_psma.boxes.detections import Detections
from nndet_psma.core.atomic import atomic_folder, remove_leftovers
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.task.cases import RawCase, list_cases
from nndet_psma.dataset.task.clinical import patient_of, read_clinical
from nndet_psma.dataset.task.description import DatasetDescription, read_description
from nndet_psma.dataset.task.instances import read_labels
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.inference.postprocessing import make_prediction
from nndet_psma.inference.predictor import choose_device
from nndet_psma.inference.tuning import RAW_FOLDER, SweepOptions, patient_groups, write_sweep
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.sweep.candidates import sweep_grid
from nndet_psma.postproc.sweep.sweep import SweepCase, sweep
from nndet_psma.systems.nodeseg.nnunet.input_case import read_case
from nndet_psma.systems.nodeseg.nnunet.model import SegmentationModel
from nndet_psma.systems.nodeseg.nnunet.predict import open_predictor, untuned
from nndet_psma.systems.nodeseg.nnunet.weights import write_lean
from nndet_psma.systems.nodeseg.plan import NodeSegPlan

VAL_PREDICTIONS = "val_predictions"
_FINISHED = "finished"
_VOLUME_CRITERION = "map"  # what nnDetection tunes boxes in 3D for
_DESCRIPTIONS = ("plans.json", "dataset.json", "dataset_fingerprint.json")


def sweep_fold(
    paths: TaskPaths, folder: ModelFolder, fold: int, config: Any, say: Callable[[str], None]
) -> InferencePlan:
    """Predict the fold's validation cases, tune on them, write thresholds, table and predictions.

    Raises:
        UserError: the fold is not trained, or its validation cases have no lesion.
    """
    predict_validation(paths, folder, fold, config, say)
    return _tune(paths, folder, fold, [fold], config)


def consolidate(
    paths: TaskPaths | None,
    folder: ModelFolder,
    folds: list[int],
    config: Any,
    say: Callable[[str], None],
    *,
    sweep_boxes: bool,
) -> InferencePlan:
    """Lean checkpoints of the folds in one model, and thresholds from the validation cases of all of them.

    The copy holds weights and plain values only: it can be given away, and is read without unpickling anything else.

    Raises:
        UserError: a fold is missing or belongs to another plan.
    """
    model = SegmentationModel(folder)
    plans = {fold: model.plan(fold) for fold in folds}
    if len({plan.content_hash() for plan in plans.values()}) > 1:
        raise UserError(
            "the folds were trained with different plans",
            file=folder.root,
            remedy="Train them again with one plan",
        )
    _copy_folds(model, plans[folds[0]], folds)
    target = folder.fold(CONSOLIDATED)
    if not sweep_boxes or paths is None:
        return InferencePlan.read(target / INFERENCE_PLAN)
    for fold in folds:
        predict_validation(paths, folder, fold, config, say)
    return _tune(paths, folder, CONSOLIDATED, folds, config)


def predict_validation(
    paths: TaskPaths, folder: ModelFolder, fold: int, config: Any, say: Callable[[str], None]
) -> list[str]:
    """Raw predictions of the fold's validation cases; finished ones are kept. Returns the case ids."""
    predictor, _ = open_predictor(folder, fold, choose_device(config.inference_kwargs.device))
    description = read_description(paths.root)
    known = {case.case_id: case for case in list_cases(paths, description)}
    names = predictor.plan.folds[fold].val
    for name in names:
        case = _known(known, name)
        made_from = hash_json([predictor.weights_hash, hash_files(list(case.images))])
        file = folder.fold(fold) / RAW_FOLDER / f"{name}.npz"
        if not is_current(file, made_from):
            found = predictor.predict(read_case(case, description, predictor.plan), made_from)
            write_raw(file, found.raw)
        say(f"fold {fold}: validation case {name}")
    return list(names)


def sweep_case(file: Path, case: RawCase, description: DatasetDescription) -> SweepCase:
    """Raw prediction and truth (one 3D box per lesion) of a case, both on the canonical grid of its files."""
    raw = read_raw(file)
    labels, classes = read_labels(case, description)
    ids, boxes = boxes_from_instances(labels.array)
    of_class = [classes[instance] for instance in ids.tolist()]
    truth = Detections.build(boxes, np.ones(len(boxes)), of_class, dim=3)
    shape, spacing = labels.geometry.shape, labels.geometry.spacing
    return SweepCase(raw.meta.case_id, raw.voters, truth, len(ids), shape[0], spacing)


def _tune(
    paths: TaskPaths, folder: ModelFolder, target_fold: int, folds: list[int], config: Any
) -> InferencePlan:
    plan = SegmentationModel(folder).plan(target_fold)
    target = folder.fold(target_fold)
    description = read_description(paths.root)
    known = {case.case_id: case for case in list_cases(paths, description)}
    owners = sorted((name, fold) for fold in folds for name in plan.folds[fold].val)
    files = [folder.fold(fold) / RAW_FOLDER / f"{name}.npz" for name, fold in owners]
    cases = [sweep_case(file, _known(known, file.stem), description) for file in files]
    options = _options(config)
    result = sweep(
        cases,
        sweep_grid(cast(Plan, plan)),  # asks for the grid only
        criterion=options.criterion,
        base=PostprocSettings(**plan.postproc_defaults),
        search=options.search,
        tune_hit_iou=options.tune_hit_iou,
        groups=_groups(paths, cases) if options.nested else (),
        trials=options.trials,
        seed=plan.seed,
    )
    write_sweep(target / "sweep.json", result)
    tuned = InferencePlan(
        made_from=hash_json([read_raw(file).meta.made_from for file in files]),
        folds=folds,
        settings=to_plain(result.settings),
        criterion=options.criterion,
        value=result.best.value,
        source=f"{result.num_settings} settings tried on {result.num_cases} validation cases of folds {folds}",
        cases=[case.case_id for case in cases],
    )
    tuned.write(target / INFERENCE_PLAN)
    _write_validation(target, files, tuned, plan)
    return tuned


def _write_validation(target: Path, files: list[Path], tuned: InferencePlan, plan: NodeSegPlan) -> None:
    settings = PostprocSettings(**tuned.settings)
    for old in (target / VAL_PREDICTIONS).glob("*_boxes.json"):
        if old.name.removesuffix("_boxes.json") not in tuned.cases:
            old.unlink()  # of a case that another plan validated here
    for file in files:
        prediction = make_prediction(read_raw(file), settings, plan.classes)
        prediction.write(target / VAL_PREDICTIONS / f"{prediction.case_id}_boxes.json")


def _groups(paths: TaskPaths, cases: list[SweepCase]) -> list[list[int]]:
    """Indices of cases to be held out in turn, patients whole."""
    clinical = read_clinical(paths)
    place = {case.case_id: index for index, case in enumerate(cases)}
    groups = patient_groups({name: patient_of(name, clinical) for name in place})
    return [[place[name] for name in group] for group in groups]


def _options(config: Any) -> SweepOptions:
    section = config.sweep
    wanted = str(section.criterion or "auto")
    return SweepOptions(
        _VOLUME_CRITERION if wanted == "auto" else wanted,
        str(section.search),
        bool(section.tune_hit_iou),
        bool(section.nested),
        int(section.trials),
    )


def _copy_folds(model: SegmentationModel, plan: NodeSegPlan, folds: list[int]) -> None:
    """Lean weights, nnU-Net's and our plan; kept with its predictions if they are there already."""
    sources = {fold: model.checkpoint(plan, fold) for fold in folds}
    for fold, file in sources.items():
        if not file.is_file():
            raise UserError(
                f"fold {fold} is not trained",
                file=file,
                remedy=f"Run nndet_train with -o exp.fold={fold}, or consolidate fewer folds with --folds",
            )
    made_from = hash_json([plan.content_hash(), folds, hash_files(list(sources.values()))])
    target = model.folder.fold(CONSOLIDATED)
    marker = target / _FINISHED
    if marker.is_file() and marker.read_text() == made_from:
        return
    remove_leftovers(target.parent)
    inside = model.trained(plan, CONSOLIDATED).relative_to(target)
    with atomic_folder(target) as temporary:
        plan.write(temporary / PLAN)
        for fold, file in sources.items():
            write_lean(file, temporary / inside / f"fold_{fold}" / file.name)
        for name in _DESCRIPTIONS:
            source = model.trained(plan, folds[0]) / name
            if source.is_file():
                shutil.copyfile(source, temporary / inside / name)
        untuned(plan, folds).write(temporary / INFERENCE_PLAN)
        (temporary / _FINISHED).write_text(made_from)


def _known(cases: dict[str, RawCase], name: str) -> RawCase:
    if name not in cases:
        raise UserError(f"validation case {name} does not exist any more", remedy="Run nndet_prep")
    return cases[name]
