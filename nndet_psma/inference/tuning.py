"""Sweep: predict the validation cases of a fold, tune the thresholds on them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.box_plan import BoxPlan
from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import VALIDATION_RAW, ModelFolder
from nndet_psma.artifacts.raw_predictions import RawPrediction, is_current, read_raw, write_raw
from nndet_psma.artifacts.run_config import SweepConfig
from nndet_psma.boxes.box import boxes_from_instances
from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.atomic import atomic_file, write_text
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.progress import progress_bar
from nndet_psma.core.schema import to_plain
from nndet_psma.inference.predictor import VoterEnsemble
from nndet_psma.postproc.steps.order import step_order
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.sweep.candidates import sweep_grid
from nndet_psma.postproc.sweep.result import ROW_COLUMNS, SLICES
from nndet_psma.postproc.sweep.sweep import SweepCase, SweepResult, sweep
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.store import inputs_hash, read_case

TABLE_NAME = "sweep_table.npz"


def predict_validation(
    folder: ModelFolder, fold: int, store: Path, *, device: Any, batch_size: int | None
) -> list[str]:
    """Raw predictions of the fold's validation cases; finished ones are kept. Returns the case ids."""
    predictor = VoterEnsemble(folder, fold, device=device, batch_size=batch_size)
    cases = predictor.plan.folds[fold].val
    target = folder.fold(fold) / VALIDATION_RAW
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
    cases: Sequence[SweepCase],
    files: Sequence[Path],
    plan: BoxPlan,
    options: SweepConfig,
    *,
    folds: list[int],
    groups: Sequence[Sequence[str]] = (),
) -> tuple[InferencePlan, SweepResult]:
    """Tune on raw validation predictions.

    Args:
        cases: boxes found and true boxes.
        files: raw predictions that the cases were made from.
        plan: its grid and defaults.
        options: how.
        folds: folds that predicted the cases.
        groups: case ids that are held out in turn.
    """
    base = PostprocSettings(**plan.postproc_defaults)
    criterion = options.criterion or "auto"
    if criterion == "auto":
        criterion = "map" if step_order(base.steps, plan.box_dim).dim == 3 else "f1"
    place = {case.case_id: index for index, case in enumerate(cases)}
    result = sweep(
        cases,
        sweep_grid(plan),
        criterion=criterion,
        base=base,
        search=options.search,
        tune_hit_iou=options.tune_hit_iou,
        groups=[[place[case_id] for case_id in group] for group in groups] if options.nested else (),
        trials=options.trials,
        seed=plan.seed,
    )
    made_from = hash_json([read_raw(file).meta.made_from for file in files])
    plan_out = InferencePlan(
        made_from=made_from,
        folds=folds,
        settings=to_plain(result.settings),
        criterion=criterion,
        value=result.best.value,
        source=_source(result, folds),
        cases=[case.case_id for case in cases],
    )
    return plan_out, result


def _source(result: SweepResult, folds: list[int]) -> str:
    """Where the thresholds come from, one sentence."""
    tried = f"{result.num_settings} settings tried on {result.num_cases} validation cases of folds {folds}"
    held = result.nested
    if held is None:
        return tried
    false = "false slice boxes" if result.judged == SLICES else "false lesions"
    return (
        f"{tried}; tuned on the other patients and scored on each of {len(held.groups)} groups held out: "
        f"{result.criterion} {held.value:.3f} (sensitivity {held.sensitivity:.3f}, "
        f"precision {held.precision:.3f}, {held.fp_per_case:.2f} {false} per case)"
    )


def patient_groups(patients: Mapping[str, str], number: int = 5) -> list[list[str]]:
    """Case ids dealt to ``number`` groups (fewer if there are fewer patients), all cases of a patient to one.

    Patients with more cases are dealt first, in turn; deterministic. One patient alone cannot be held out: no groups.

    Args:
        patients: case id to patient.
        number: groups wanted.
    """
    of_patient: dict[str, list[str]] = {}
    for case_id in sorted(patients):
        of_patient.setdefault(patients[case_id], []).append(case_id)
    if len(of_patient) < 2:
        return []
    groups: list[list[str]] = [[] for _ in range(min(number, len(of_patient)))]
    order = sorted(of_patient, key=lambda patient: (-len(of_patient[patient]), patient))
    for place, patient in enumerate(order):
        groups[place % len(groups)] += of_patient[patient]
    return [sorted(group) for group in groups]


def write_sweep(file: Path, result: SweepResult) -> None:
    """Write what a sweep found: ``columns`` and ``rows`` as JSON, the whole table of a joint sweep beside it.

    The table (hundreds of thousands of settings) is ``sweep_table.npz``: one array per threshold and count, see
    :class:`nndet_psma.postproc.sweep.result.SweepTable`; readable without pickle.
    """
    content = to_plain(replace(result, table=None))
    table = file.with_name(TABLE_NAME)
    if result.table is None:
        table.unlink(missing_ok=True)  # of an earlier sweep
    else:
        with atomic_file(table) as temporary, temporary.open("wb") as handle:
            arrays: dict[str, Any] = dict(result.table.arrays())
            np.savez_compressed(handle, **arrays)
    content["table"] = None if result.table is None else TABLE_NAME
    content["columns"] = ROW_COLUMNS
    content["rows"] = [[row[name] for name in ROW_COLUMNS] for row in content["rows"]]
    write_text(file, json.dumps({"schema": "nndet_psma.sweep", "version": 2, **content}) + "\n")


def sweep_case(file: Path, store: Path) -> SweepCase:
    """Raw prediction of one case and the slice boxes of its lesions, on its store grid.

    Raises:
        UserError: the case has no labels.
    """
    raw, case, instances, ids = _labelled(file, store)
    boxes, slices, lesions, labels = [], [], [], []
    for z in np.flatnonzero((instances > 0).any(axis=(1, 2))).tolist():
        found, found_boxes = boxes_from_instances(instances[z])
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
    depth = case.geometry.shape[0]
    return SweepCase(case.case_id, raw.voters, truth, len(ids), depth, case.geometry.spacing)


def volume_case(file: Path, store: Path) -> SweepCase:
    """Raw prediction of one case and the 3D boxes of its lesions, on its store grid.

    A lesion without a voxel on the store has an empty box: it can only be missed.

    Raises:
        UserError: the case has no labels.
    """
    raw, case, instances, ids = _labelled(file, store)
    found, found_boxes = boxes_from_instances(instances)
    boxes = np.zeros((len(ids), 6))
    boxes[[ids.index(instance) for instance in found.tolist()]] = found_boxes
    labels = [case.classes.get(instance, 0) for instance in ids]
    truth = Detections.build(boxes, np.ones(len(ids)), labels)
    depth = case.geometry.shape[0]
    return SweepCase(case.case_id, raw.voters, truth, len(ids), depth, case.geometry.spacing)


def _labelled(file: Path, store: Path) -> tuple[RawPrediction, PreparedCase, NDArray[np.int16], list[int]]:
    """Prediction, case, instances and the ids of all lesions, also of those without a voxel of their own."""
    raw = read_raw(file)
    case = read_case(store, raw.meta.case_id)
    if case.instances is None:
        raise UserError(f"case {case.case_id} was preprocessed without labels", remedy="Run nndet_prep")
    return raw, case, np.asarray(case.instances), sorted({*case.classes, *case.lost_instances})


def _image_grid(case: PreparedCase) -> Geometry:
    """Validation predictions go back to the canonical grid; labels are read on it, too."""
    return case.source
