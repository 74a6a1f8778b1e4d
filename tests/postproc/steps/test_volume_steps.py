"""The steps on boxes in 3D: every one by hand, and what happens when they meet slice boxes."""

import re
from dataclasses import replace

import numpy as np
import pytest
from postproc_cases import slice_boxes
from volume_cases import BASE, SPACING, volume_boxes

from nndet_psma.boxes.detections import Detections
from nndet_psma.core.errors import UserError
from nndet_psma.postproc.steps.order import step_order, without_filters
from nndet_psma.postproc.steps.settings import DEFAULT_STEPS, VOLUME_STEPS, PostprocSettings
from nndet_psma.postproc.steps.steps import RemovedBox, postprocess_case
from nndet_psma.postproc.sweep.candidates import SweepGrid
from nndet_psma.postproc.sweep.case import SweepCase
from nndet_psma.postproc.sweep.sweep import sweep

# sides 2 x 4 x 4, moved by one voxel along x: IoU 3/5; by two: 1/3; along z by one: 1/3
A, A1, A2, DEEPER = (0, 0, 0, 2, 4, 4), (0, 0, 1, 2, 4, 5), (0, 0, 2, 2, 4, 6), (1, 0, 0, 3, 4, 4)
FAR = (6, 9, 9, 9, 13, 13)


def run(raw, **changes):
    settings = replace(BASE, **changes)
    return postprocess_case(raw, settings, spacing=SPACING, record_removed=True)


def test_order_of_volume_steps():
    order = step_order(VOLUME_STEPS)
    assert order.dim == 3
    assert [step.label for step in order.on_folds] == ["nms"]
    assert [step.label for step in order.on_voters] == ["score", "zone", "hu", "size"]
    assert without_filters(VOLUME_STEPS) == (*VOLUME_STEPS[:3], "WindowBagging", "BoxSlicing")


def test_every_fold_is_suppressed_before_they_are_fused():
    """Behind the fusion A1 of the first fold would have joined A; before it, A of the same fold takes it away."""
    raw = {"v": [volume_boxes((A, 0.9), (A1, 0.8)), volume_boxes((A, 0.5))]}
    result = run(raw, nms_iou=0.5, fold_iou=0.5)
    assert result.lesions.boxes.tolist() == [list(A)]
    assert result.lesions.scores.tolist() == [0.7]  # (0.9 + 0.5) / 2
    assert [(box.step, box.score) for box in result.removed] == [("nms", 0.8)]


def test_boxes_compete_in_depth_too():
    result = run({"v": [volume_boxes((A, 0.9), (DEEPER, 0.8))]}, nms_iou=0.3)
    assert len(result.lesions) == 1  # IoU 1/3 although the slices in common are the same rectangle
    assert len(run({"v": [volume_boxes((A, 0.9), (DEEPER, 0.8))]}, nms_iou=0.34).lesions) == 2
    other_class = volume_boxes((A, 0.9, 0), (DEEPER, 0.8, 1))
    assert len(run({"v": [other_class]}, nms_iou=0.3).lesions) == 2


def test_lesions_and_slices_of_a_case():
    result = run({"v": [volume_boxes((FAR, 0.4), (A, 0.9))]})
    assert result.lesions.scores.tolist() == [0.9, 0.4]
    assert result.slices.columns["slice"].tolist() == [0, 1, 6, 7, 8]
    assert result.slices.columns["lesion"].tolist() == [0, 0, 1, 1, 1]
    assert result.slices.columns["votes"].tolist() == [1] * 5
    assert result.slices.columns["hu_quantiles"].shape == (5, 10)


@pytest.mark.parametrize(
    ("changes", "step", "reason"),
    [
        ({"score_threshold": 0.5}, "score", "score 0.4 below 0.5"),
        ({"zone_mm": 3.0}, "zone", "centre 5.0 mm outside the CTV, at most 3.0 mm kept"),
        ({"hu_threshold": 100.0}, "hu", "150 HU at quantile 0.5, at most 100 HU kept"),
        # FAR: 9 mm deep, 2 x 4 mm in plane; A: 6 mm deep, 4 x 4 mm
        (
            {"min_short_axis_mm": 3.0},
            "size",
            "4.0 x 2.0 mm in plane, shortest side 2.0 mm, limits: .*axis_mm 3",
        ),
        (
            {"min_extent_mm": 3.0},
            "size",
            "4.0 x 2.0 mm in plane, shortest side 2.0 mm, limits: min_extent_mm 3",
        ),
    ],
)
def test_removed_boxes_tell_their_depth(changes, step, reason):
    thin = (6, 9, 9, 9, 13, 11)
    raw = {"v": [volume_boxes((A, 0.9), (thin, 0.4), zone=[0, 5], hu=[50, 150])]}
    result = run(raw, **changes)
    assert result.lesions.boxes.tolist() == [list(A)]
    (gone,) = result.removed
    assert (gone.step, gone.slice, gone.box, gone.depth) == (step, 7, (9, 9, 13, 11), (6, 9))
    assert gone.edges == thin
    assert pytest.approx(0.4) == gone.score
    assert re.fullmatch(reason, gone.reason)


def test_a_slice_box_is_one_slice_thick():
    assert RemovedBox("v", 3, (0, 1, 2, 3), 0.5, "score", "").edges == (3, 0, 1, 4, 2, 3)


def test_shortest_side_counts_z():
    # A is 6 mm deep and 4 x 4 mm in plane, FAR 9 mm and 4 x 4: a flat box of one voxel has 3 mm
    flat = (4, 0, 0, 5, 4, 4)
    assert len(run({"v": [volume_boxes((A, 0.9), (flat, 0.5))]}, min_extent_mm=3.0).lesions) == 2
    assert len(run({"v": [volume_boxes((A, 0.9), (flat, 0.5))]}, min_extent_mm=3.1).lesions) == 1


def test_voters_agree_on_volumes():
    raw = {"a": [volume_boxes((A, 0.9), (FAR, 0.8))], "b": [volume_boxes((A1, 0.6))]}
    result = run(raw, min_votes=2, vote_iou=0.5)
    # x0: (0.9 * 0 + 0.6 * 1) / 1.5
    np.testing.assert_allclose(result.lesions.boxes, [[0, 0, 0.4, 2, 4, 4.4]])
    assert result.lesions.scores.tolist() == [0.75]
    assert [(box.voter, box.step, box.slice) for box in result.removed] == [("a", "bagging", 7)]


@pytest.mark.parametrize("empty", [Detections.empty(2), Detections.empty(3), volume_boxes()])
@pytest.mark.parametrize("folds", [1, 2])
def test_voters_and_folds_without_boxes(empty, folds):
    nothing = run({"a": [empty] * folds, "b": [empty]})
    assert (len(nothing.slices), len(nothing.lesions)) == (0, 0)
    assert (nothing.slices.dim, nothing.lesions.dim) == (2, 3)
    assert set(nothing.slices.columns) >= {"slice", "lesion"}
    some = run({"a": [empty, volume_boxes((A, 0.9))], "b": [empty]}, fold_score="all")
    assert some.lesions.scores.tolist() == [0.225]  # of one fold of two, of one voter of two


def test_filter_on_lesions():
    steps = ("NMS", "WeightedBoxClustering", "WindowBagging", "BoxSlicing", "SizeFilter")
    result = run({"v": [volume_boxes((A, 0.9), (FAR, 0.4))]}, steps=steps, min_extent_mm=3.5, max_size_mm=4.0)
    assert len(result.lesions) == 2
    result = run({"v": [volume_boxes((A, 0.9), (FAR, 0.4))]}, steps=steps, min_short_axis_mm=4.5)
    assert (len(result.lesions), len(result.slices)) == (0, 0)
    assert [box.slice for box in result.removed] == [0, 1, 6, 7, 8]  # told slice by slice


class TestMixing:
    def test_slice_steps_with_volumes(self):
        settings = PostprocSettings(steps=DEFAULT_STEPS)
        message = (
            "SliceLinking does not fit the detector; expected slice boxes; found boxes in 3D.*"
            "Put BoxSlicing in its place in postproc_defaults.steps"
        )
        with pytest.raises(UserError, match=message):
            postprocess_case({"v": [volume_boxes((A, 0.9))]}, settings, spacing=SPACING)

    def test_volume_steps_with_slices(self):
        raw = {"v": [slice_boxes((0, (0, 0, 4, 4), 0.9))]}
        with pytest.raises(UserError, match=r"BoxSlicing does not fit.*found slice boxes.*Put SliceLinking"):
            postprocess_case(raw, BASE, spacing=SPACING)

    def test_one_of_each(self):
        raw = {"v": [volume_boxes((A, 0.9))], "w": [slice_boxes((0, (0, 0, 4, 4), 0.9))]}
        with pytest.raises(UserError, match="does not fit the detector"):
            postprocess_case(raw, BASE, spacing=SPACING)

    def test_plan_that_names_the_other_step(self):
        assert step_order(VOLUME_STEPS, 3).dim == 3
        with pytest.raises(UserError, match="SliceLinking does not fit"):
            step_order(DEFAULT_STEPS, 3)
        with pytest.raises(UserError, match="BoxSlicing does not fit"):
            step_order(VOLUME_STEPS, 2)
        with pytest.raises(UserError, match="needs exactly one LinkStep; found 2"):
            step_order((*VOLUME_STEPS, "SliceLinking"))

    def test_sweep(self):
        truth = Detections.build([A], [1.0])
        case = SweepCase("a", {"v": [volume_boxes((A, 0.9))]}, truth, 1, 9, SPACING)
        grid = SweepGrid((), (), (), (0.5,), ())
        with pytest.raises(UserError, match="SliceLinking does not fit"):
            sweep([case], grid, criterion="f1", base=PostprocSettings())
