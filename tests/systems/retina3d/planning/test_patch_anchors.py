"""3D anchors: overlap by hand and against a slow reference, and what fitting must never do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nndet_psma.systems.retina3d.planning.anchors import (
    PatchAnchorScore,
    doubled_shapes,
    fit_patch_anchors,
    grid_offsets_3d,
    placed_iou_3d,
    quantile_shapes,
    score_patch_anchors,
)

SIDES = st.lists(st.tuples(*[st.floats(1.0, 40.0)] * 3), min_size=1, max_size=12)
STRIDES = [(1, 2, 2), (2, 4, 4)]


def test_overlap_by_hand() -> None:
    # 2 x 4 x 4 against itself, one voxel aside in x: 2 * 4 * 3 = 24 shared of 2 * 32 - 24 = 40
    found = placed_iou_3d(np.array([[2.0, 4.0, 4.0]]), (2.0, 4.0, 4.0), np.array([[0, 0, 1.0], [3.0, 0, 0]]))
    np.testing.assert_allclose(found, [[24 / 40, 0.0]])
    # inside another: 8 of 27, wherever it fits
    found = placed_iou_3d(np.array([[2.0, 2.0, 2.0]]), (3.0, 3.0, 3.0), np.array([[0.5, 0.5, 0.5]]))
    np.testing.assert_allclose(found, [[8 / 27]])


@given(SIDES, st.tuples(*[st.floats(1, 20)] * 3), st.tuples(*[st.floats(0, 12)] * 3))
def test_overlap_is_that_of_boxes(sides, shape, offset) -> None:
    boxes = np.array(sides)
    found = placed_iou_3d(boxes, shape, np.array([offset]))[:, 0]
    for lesion, value in zip(boxes, found, strict=True):
        low = np.maximum(-lesion / 2, np.array(offset) - np.array(shape) / 2)
        high = np.minimum(lesion / 2, np.array(offset) + np.array(shape) / 2)
        shared = np.prod(np.clip(high - low, 0, None))
        assert value == pytest.approx(shared / (lesion.prod() + np.prod(shape) - shared), abs=1e-9)


def test_offsets_are_evenly_spread_over_half_a_stride() -> None:
    offsets = grid_offsets_3d((1, 4, 8), 256)
    assert (offsets.max(axis=0) <= [0.5, 2.0, 4.0]).all()
    np.testing.assert_allclose(offsets.mean(axis=0), [0.25, 1.0, 2.0], rtol=0.05)  # half of half a stride
    corner = ((offsets[:, 1] < 1.0) & (offsets[:, 2] < 2.0)).mean()
    assert corner == pytest.approx(0.25, abs=0.03)  # axes are independent


def test_score_by_hand_on_a_grid_of_stride_one() -> None:
    # anchor 2 x 2 x 2 on lesions 2 x 2 x 2 and 4 x 2 x 2: centred 1 and 1/2, mean 3/4; both reach 0.5
    lesions = np.array([[2.0, 2.0, 2.0], [4.0, 2.0, 2.0]])
    score = score_patch_anchors(lesions, [[(2.0, 2.0, 2.0)]], [(1, 1, 1)])
    assert score.mean_best_iou == pytest.approx(0.75)
    assert score.recall_50 == 1.0
    assert score.placed_mean_best_iou < score.mean_best_iou


def test_one_kind_of_lesion_gets_its_own_shape() -> None:
    fit = fit_patch_anchors(np.array([[4.0, 7.0, 9.0]] * 5), [(1, 1, 1)], per_level=1)
    assert fit.shapes == [[(4.0, 7.0, 9.0)]]
    assert fit.score.mean_best_iou == 1.0


def test_two_kinds_are_both_met_where_the_grid_is_fine() -> None:
    lesions = np.array([[3.0, 5.0, 5.0], [8.0, 20.0, 20.0]] * 4)
    fit = fit_patch_anchors(lesions, [(1, 2, 2), (2, 4, 4)], per_level=1)
    assert fit.score.recall_50 == 1.0
    assert np.prod(fit.shapes[0][0]) < np.prod(fit.shapes[1][0])  # the small ones on the fine grid


@settings(max_examples=15, deadline=None)
@given(SIDES)
def test_never_worse_than_its_starts_and_deterministic(sides) -> None:
    lesions = np.array(sides)
    fit = fit_patch_anchors(lesions, STRIDES, per_level=2)
    assert [len(level) for level in fit.shapes] == [2, 2]
    flat = [shape for level in fit.shapes for shape in level]
    assert all(side >= 1 and side * 2 == round(side * 2) for shape in flat for side in shape)
    for level in fit.shapes:
        assert np.prod(level[0]) <= np.prod(level[1])
    even = quantile_shapes(lesions, 4)
    for start in ([even[:2], even[2:]], doubled_shapes(lesions, STRIDES, 2)):
        reached = score_patch_anchors(lesions, start, STRIDES).placed_mean_best_iou
        assert fit.score.placed_mean_best_iou >= reached - 1e-9
    assert fit.score.placed_mean_best_iou >= fit.doubled.placed_mean_best_iou - 1e-9
    assert fit_patch_anchors(lesions[::-1], STRIDES, per_level=2) == fit  # nor does the order matter


def test_it_improves_on_doubled_sizes() -> None:
    """Flat and tall lesions: sizes that only grow with the stride cannot fit both."""
    rng = np.random.default_rng(0)
    flat = rng.uniform(1, 2, (20, 1)) * [1.0, 8.0, 8.0]
    tall = rng.uniform(1, 2, (20, 1)) * [8.0, 4.0, 4.0]
    fit = fit_patch_anchors(np.concatenate([flat, tall]), STRIDES)
    assert fit.score.placed_mean_best_iou > fit.doubled.placed_mean_best_iou + 0.02
    assert isinstance(fit.doubled, PatchAnchorScore)


def test_doubled_sizes_follow_the_strides() -> None:
    lesions = np.array([[2.0, 4.0, 4.0]])
    assert doubled_shapes(lesions, [(1, 2, 2), (2, 4, 4), (2, 8, 8)], 1) == [
        [(2.0, 4.0, 4.0)], [(4.0, 8.0, 8.0)], [(4.0, 16.0, 16.0)],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lesions", "strides", "message"),
    [
        (np.zeros((0, 3)), STRIDES, "anchors need lesions"),
        (np.ones((2, 2)), STRIDES, "anchors need lesions"),
        (np.array([[1.0, 0.0, 1.0]]), STRIDES, "positive and finite"),
        (np.array([[1.0, np.nan, 1.0]]), STRIDES, "positive and finite"),
        (np.ones((1, 3)), [], "at least one level"),
    ],
)
def test_what_is_refused(lesions, strides, message) -> None:
    with pytest.raises(ValueError, match=message):
        fit_patch_anchors(lesions, strides)
