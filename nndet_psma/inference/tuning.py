"""Sweep: predict the validation cases of a fold, tune the thresholds on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.plan import Plan
from nndet_psma.core.atomic import write_text
from nndet_psma.core.boxes import boxes_from_instances
from nndet_psma.core.detections import Detections
from nndet_psma.core.errors import UserError
from nndet_psma.core.geometry import Geometry
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.progress import progress_bar
from nndet_psma.core.schema import to_plain
from nndet_psma.inference.model_folder import ModelFolder
from nndet_psma.inference.predictor import CasePredictor
from nndet_psma.inference.raw_predictions import is_current, read_raw, write_raw
from nndet_psma.postproc.settings import PostprocSettings
from nndet_psma.postproc.sweep import SweepCase, SweepResult, SweepRow, sweep
from nndet_psma.postproc.sweep_grid import sweep_grid
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.store import inputs_hash, read_case

RAW_FOLDER = "sweep_predictions"


def predict_validation(
    folder: ModelFolder, fold: int, store: Path, *, device: Any, batch_size: int | None
) -> list[str]:
    """Raw predictions of the fold's validation cases; finished ones are kept. Returns the case ids."""
    predictor = CasePredictor(folder, fold, device=device, batch_size=batch_size)
    cases = predictor.plan.folds[fold].val
    target = folder.fold(fold) / RAW_FOLDER
    with progress_bar(f"fold {fold}: validation cases", len(cases)) as advance:
        for done, case_id in enumerate(cases, start=1):
            case = read_case(store, case_id)
            made_from = hash_json([predictor.weights_hash, inputs_hash(store, case_id)])
            file = target / f"{case_id}.npz"
            if not is_current(file, made_from):
                write_raw(file, predictor.predict(case, _image_grid(case), made_from))
            advance(done, case_id)
    return list(cases)


def tune(
    files: Sequence[Path], store: Path, plan: Plan, *, criterion: str, folds: list[int]
) -> tuple[InferencePlan, SweepResult]:
    """Tune on the raw validation predictions ``files``."""
    cases = [sweep_case(file, store) for file in files]
    grid = sweep_grid(plan)
    base = PostprocSettings(**plan.postproc_defaults)
    result = sweep(cases, grid, criterion=criterion, base=base)
    made_from = hash_json([read_raw(file).meta.made_from for file in files])
    plan_out = InferencePlan(
        made_from=made_from,
        folds=folds,
        settings=to_plain(result.settings),
        criterion=criterion,
        value=result.best.value,
        source=f"{result.num_settings} settings tried on {result.num_cases} validation cases of folds {folds}",
        cases=[case.case_id for case in cases],
    )
    return plan_out, result


def untuned(plan: Plan, folds: list[int]) -> InferencePlan:
    """The plan's starting thresholds."""
    settings = to_plain(PostprocSettings(**plan.postproc_defaults))
    return InferencePlan("", folds, settings, "", None, "starting values of the plan, not tuned", [])


def write_sweep(file: Path, result: SweepResult) -> None:
    """Write the whole table of a sweep: ``columns`` and ``rows`` (thousands, so without indentation)."""
    content = to_plain(result)
    columns = [field.name for field in fields(SweepRow)]
    content["columns"] = columns
    content["rows"] = [[row[name] for name in columns] for row in content["rows"]]
    write_text(file, json.dumps({"schema": "nndet_psma.sweep", "version": 1, **content}) + "\n")


def sweep_case(file: Path, store: Path) -> SweepCase:
    """Raw prediction and truth of one case on its store grid."""
    raw = read_raw(file)
    case = read_case(store, raw.meta.case_id)
    if case.instances is None:
        raise UserError(f"case {case.case_id} was preprocessed without labels", remedy="Run nndet_prep")
    ids = sorted(case.classes)
    boxes, slices, lesions, labels = [], [], [], []
    for z in np.flatnonzero((np.asarray(case.instances) > 0).any(axis=(1, 2))).tolist():
        found, found_boxes = boxes_from_instances(np.asarray(case.instances[z]))
        for instance, box in zip(found.tolist(), found_boxes, strict=True):
            boxes.append(box)
            slices.append(z)
            lesions.append(ids.index(instance))
            labels.append(case.classes[instance])
    truth = Detections.build(
        np.array(boxes) if boxes else [],
        np.ones(len(boxes)),
        labels,
        dim=2,
        slice=np.array(slices, dtype=np.int64),
        lesion=np.array(lesions, dtype=np.int64),
    )
    total = len(ids) + len(case.lost_instances)  # those without a voxel of their own can only be missed
    depth = case.geometry.shape[0]
    return SweepCase(case.case_id, raw.voters, truth, total, depth, case.geometry.spacing)


def _image_grid(case: PreparedCase) -> Geometry:
    """Validation predictions go back to the canonical grid; labels are read on it, too."""
    return case.source
