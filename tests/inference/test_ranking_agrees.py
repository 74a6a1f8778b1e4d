"""What a sweep maximises as ``auc`` and ``patient_auc`` is what the evaluation tells of the chosen thresholds."""

from dataclasses import replace

import numpy as np
import pytest
from fake_models import raw_of
from sweep_cases import BASE, SPACING, random_cases, with_healthy
from volume_cases import BASE as VOLUME_BASE
from volume_cases import random_volumes

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.evaluation.detection.record import Truth
from nndet_psma.evaluation.detection.scores import score_records
from nndet_psma.inference.postprocessing import make_prediction
from nndet_psma.inference.records import make_record
from nndet_psma.postproc.sweep.candidates import SweepGrid
from nndet_psma.postproc.sweep.sweep import sweep

GRID = Geometry((20, 20, 20), SPACING)
CLASSES = {"0": "node", "1": "bone"}
TRIED = SweepGrid((2.0,), (110.0,), (0.3, 1.0), (0.2, 0.6), (1, 2, 3), (0.3, 0.6))


def truth_of(case):
    """Lesions as the sweep knows them; of slice boxes the 3D box is the first of them, one slice thick."""
    boxes = case.truth.boxes
    if case.truth.dim == 3:
        rows = [(z, row) for row, box in enumerate(boxes) for z in range(int(box[0]), int(box[3]))]
        slices = np.array(rows, dtype=np.int64).reshape(-1, 2)
        return Truth(
            case.truth.labels, boxes, slices[:, 0], slices[:, 1], boxes[slices[:, 1]][:, [1, 2, 4, 5]], 20
        )
    none = np.zeros(0, dtype=np.int64)
    where, lesion = case.truth.columns.get("slice", none), case.truth.columns.get("lesion", none)
    thick = np.concatenate([where[:, None], boxes[:, :2], where[:, None] + 1, boxes[:, 2:]], axis=1)
    first = np.unique(lesion, return_index=True)[1]
    return Truth(case.truth.labels[first], thick[first], where, lesion, boxes, 20)


@pytest.mark.parametrize(("criterion", "key"), [("auc", "paper_auc"), ("patient_auc", "patient_auc")])
@pytest.mark.parametrize("volumes", [False, True])
def test_the_sweep_maximises_what_is_reported(criterion, key, volumes):
    made = random_volumes(13, num_cases=5, folds=2) if volumes else random_cases(13, num_cases=5)
    cases = with_healthy(made, ["a", "B", "a", "C", "d"])
    tried = replace(TRIED, others={"min_extent_mm": (4.0,)} if volumes else {})
    base = VOLUME_BASE if volumes else BASE
    result = sweep(cases, tried, criterion=criterion, base=base)
    records = []
    for case in cases:
        raw = raw_of(case.raw, GRID, case_id=case.case_id)
        prediction = make_prediction(raw, result.settings, CLASSES)
        records.append(make_record(prediction, truth_of(case), GRID, case.patient, slice_iou=0.1))
    scores = score_records(records, classes=list(CLASSES.values()), bootstrap_draws=0).scores
    assert 0.5 < scores[key].value < 1
    assert scores[key].value == pytest.approx(result.best.value, abs=1e-12)
