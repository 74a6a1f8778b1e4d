"""Who found whom, which slices are shown, and where removed boxes lie, on the tiny model worked out by hand."""

import numpy as np
import pytest

from nndet_psma.artifacts.raw_predictions import RawPrediction
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.inference.postprocessing import make_prediction
from nndet_psma.report.charts.drawing import View, close_up
from nndet_psma.report.charts.pictures import region_view
from nndet_psma.report.findings import CaseCounts, find
from nndet_psma.report.removed import covered_slices, removed_boxes
from nndet_psma.report.shots import (
    best_hits,
    case_shot,
    spread_evenly,
    worst_false_alarms,
    worst_misses,
)
from nndet_psma.stages.report import ReportJob, read_source


@pytest.fixture(scope="module")
def source(tiny):
    return read_source(tiny.paths, ReportJob(tiny.folder))


@pytest.fixture(scope="module")
def found(source):
    return find(source.predictions["case_a"], source.raw.labels("case_a"), 0.1)


@pytest.fixture(scope="module")
def nothing(source):
    return find(source.predictions["k<b>&1"], source.raw.labels("k<b>&1"), 0.1)


def test_hits_misses_and_false_alarms(found):
    by_slice = dict(
        zip(found.boxes.columns["slice"].tolist(), found.boxes.columns["hit"].tolist(), strict=True)
    )
    assert by_slice == {1: False, 2: True}
    assert found.found == {0}
    assert found.missed == [1]
    assert len(found.false_alarms) == 1
    assert found.examined == (0.0, 2.0, 2.0, 6.0, 38.0, 46.0)


def test_found_agrees_with_the_record(source, found):
    [record] = [r for r in source.records if r.case_id == "case_a"]
    hits = {lesion for prediction in record.slices.predictions for lesion in prediction.hits}
    assert hits == found.found
    assert len(record.slices.predictions) == len(found.boxes)


def test_a_box_on_another_slice_than_the_lesion_is_no_hit(source, tiny):
    # the same prediction judged where node 1 is on slices 3 and 4: the box on slice 2 hits nothing
    labels = source.raw.labels("case_a")
    truth = labels.truth
    moved = type(truth)(
        truth.labels, truth.boxes, truth.slice_indices + 1, truth.slice_lesions, truth.slice_boxes, 6
    )
    shifted = find(source.predictions["case_a"], type(labels)(moved, labels.grid), 0.1)
    assert shifted.found == frozenset()
    assert len(shifted.false_alarms) == 2


def test_boxes_of_a_flipped_file_come_back_to_the_canonical_grid(source, tiny):
    # the file runs right to left: x = 48 - x'; everything else as before
    from tiny_model import GRID, SETTINGS, raw_prediction

    direction = (-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
    file_grid = Geometry(GRID.shape, GRID.spacing, (47 * 2.0, 0.0, 0.0), direction)
    raw = raw_prediction("case_a")
    meta = type(raw.meta)(**{**vars(raw.meta), "image": file_grid})
    flipped = make_prediction(RawPrediction(meta, raw.voters), SETTINGS, {"0": "node"})
    assert flipped.lesions[0].box[2] == pytest.approx(48 - 16)
    again = find(flipped, source.raw.labels("case_a"), 0.1)
    plain = find(source.predictions["case_a"], source.raw.labels("case_a"), 0.1)
    np.testing.assert_allclose(again.boxes.boxes, plain.boxes.boxes, atol=1e-3)


def test_shots(found, nothing):
    shot = case_shot(found)
    assert (shot.slice, shot.focus, shot.verdict, shot.badge) == (
        2,
        (10.0, 12.0, 14.0, 16.0),
        "miss",
        "1 of 2 found",
    )
    [missed] = worst_misses([found, nothing], 4)
    assert (missed.slice, missed.focus, missed.lesion) == (4, (30.0, 36.0, 33.0, 39.0), 1)
    [alarm] = worst_false_alarms([found, nothing], 4)
    assert (alarm.slice, alarm.focus) == (1, (20.0, 20.0, 24.0, 24.0))
    assert alarm.score == pytest.approx(0.6)
    assert [shot.case_id for shot in best_hits([nothing, found], 4)] == ["case_a"]
    empty = case_shot(nothing)
    assert (empty.slice, empty.verdict, empty.badge) == (3, "none", "no lesion, no false")


def test_removed_boxes_name_step_and_place(tiny, source):
    by_step = {}
    for box in source.raw.removed("case_a"):
        by_step.setdefault(box.step, []).append(box)
    assert {step: len(boxes) for step, boxes in by_step.items()} == {"hu": 2, "bagging": 1}
    assert by_step["hu"][0].box == pytest.approx((25, 30, 29, 34))
    assert by_step["hu"][0].slices == (2,)
    assert "at most 100 HU kept" in by_step["hu"][0].reason
    assert by_step["bagging"][0].slices == (3,)
    assert source.raw.removed("k<b>&1") == []


def test_removed_boxes_on_a_finer_grid(tiny):
    # slices half as thick: store slice 2 (8..12 mm) covers slices 4 and 5 of the finer grid, pixels count double
    from tiny_model import SETTINGS, raw_prediction

    fine = Geometry((12, 80, 96), (2.0, 1.0, 1.0), (-0.5, -0.5, -1.0))
    hu = [b for b in removed_boxes([raw_prediction("case_a")], SETTINGS, fine) if b.step == "hu"]
    assert hu[0].slices == (4, 5)
    assert hu[0].box == pytest.approx((50, 60, 58, 68))


@pytest.mark.parametrize(
    ("low", "high", "slices"),
    [(2, 3, (2,)), (1.9, 4.1, (2, 3)), (2.6, 3.4, (3,)), (-3, -2, (0,)), (9, 10, (5,))],
)
def test_covered_slices(low, high, slices):
    assert covered_slices(np.array([low, 0, 0, high, 1, 1]), 6) == slices


def test_order_of_cases_is_worst_first():
    cases = [
        CaseCounts("clean", 0, 0, 0, 0, None),
        CaseCounts("half", 2, 1, 2, 2, 0.9),
        CaseCounts("noisy", 1, 1, 10, 1, 0.9),
        CaseCounts("nothing", 3, 0, 0, 0, None),
    ]
    assert [c.case_id for c in sorted(cases, key=lambda c: c.quality)] == [
        "nothing",
        "half",
        "noisy",
        "clean",
    ]


@pytest.mark.parametrize(
    ("amount", "count", "positions"),
    [(3, 5, [0, 1, 2]), (5, 2, [0, 4]), (9, 3, [0, 4, 8]), (4, 0, []), (0, 3, [])],
)
def test_spread_evenly(amount, count, positions):
    assert spread_evenly(amount, count) == positions


def test_a_close_up_is_centred_and_wide_enough():
    # 8 x 8 mm at 2 mm pixels: 56 mm wide = 28 pixels round x = 14; ratio 0.5: 14 pixels round y = 12
    assert close_up((10, 12, 14, 16), (2.0, 2.0), 0.5) == View(5.0, 0.0, 19.0, 28.0)
    # a 100 mm wide box gets 170 mm
    assert close_up((0, 0, 10, 50), (2.0, 2.0), 1.0) == View(5 - 42.5, 25 - 42.5, 5 + 42.5, 25 + 42.5)


def test_the_region_holds_the_examined_box_and_the_focus(found):
    from dataclasses import replace

    shot = replace(case_shot(found), focus=(0.0, 0.0, 5.0, 47.0))
    view = region_view(found, shot, (2.0, 2.0))
    assert view.y0 <= 0
    assert view.x0 <= 0
    assert view.y1 >= 38
    assert view.x1 >= 47
