"""Value of weights on validation slices: matching slice by slice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nndet_psma.boxes.box import boxes_from_instances
from nndet_psma.boxes.detections import Detections
from nndet_psma.core.errors import UserError
from nndet_psma.preprocess.region import stage_region
from nndet_psma.preprocess.store import read_case
from nndet_psma.systems.psma25d.predict import predict_slices
from nndet_psma.systems.psma25d.selection import match_slices
from nndet_psma.trainers.selection import find_hits


@pytest.fixture
def case(tiny_task):
    return read_case(tiny_task.store, "case_0")


def _boxes(case, stage, plan):
    """The truth of every slice of the stage as detections."""
    region = stage_region(case, plan, stage)
    rows = []
    for z in region.slices.tolist():
        plane = case.instances[z] * (1 if region.mask is None else region.mask[z])
        rows += [(z, box) for box in boxes_from_instances(plane)[1]]
    slices, boxes = [z for z, _ in rows], np.array([box for _, box in rows])
    return Detections.build(boxes, np.full(len(rows), 0.9), dim=2, slice=np.array(slices))


@pytest.mark.parametrize("number", [0, -1])
def test_truth_scores_one_and_moved_boxes_nothing(tiny_task, case, number):
    plan, stage = tiny_task.plan, tiny_task.plan.stages[number]
    truth = _boxes(case, stage, plan)
    assert len(truth) > 3
    found = match_slices(truth, case, plan, stage)
    assert found.lesions == {0: len(truth)}
    assert found.average_precision() == 1.0
    away = replace(truth, boxes=truth.boxes + 30)
    assert match_slices(away, case, plan, stage).average_precision() == 0.0
    next_slice = replace(truth, columns={"slice": truth.columns["slice"][::-1].copy()})
    assert match_slices(next_slice, case, plan, stage).average_precision() < 1.0
    assert match_slices(Detections.empty(2, truth.columns), case, plan, stage).average_precision() == 0.0


def test_case_without_labels(tiny_task, case):
    plan = tiny_task.plan
    unlabelled = replace(case, instances=None)
    with pytest.raises(UserError, match="case_0 was preprocessed without labels"):
        match_slices(Detections.empty(2), unlabelled, plan, plan.stages[0])


def test_model_is_run_on_every_case(tiny_task):
    plan, stage = tiny_task.plan, tiny_task.plan.stages[-1]
    seen = []

    class Blind(torch.nn.Module):
        def forward(self, images):
            return [
                {
                    "boxes": torch.zeros(0, 4),
                    "labels": torch.zeros(0, dtype=torch.int64),
                    "scores": torch.zeros(0),
                }
                for _ in images
            ]

    found = find_hits(
        tiny_task.store,
        ["case_0", "case_5"],
        lambda case: predict_slices(Blind(), case, plan, stage, device=torch.device("cpu"), batch_size=4),
        lambda boxes, case: match_slices(boxes, case, plan, stage),
        classes=1,
        advance=lambda: seen.append(1),
    )
    assert len(seen) == 2
    assert found.lesions[0] > 0
    assert found.average_precision() == 0.0
