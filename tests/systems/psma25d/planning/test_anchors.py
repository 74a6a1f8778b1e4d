"""Anchors: IoU by hand, torchvision's rounding, placement on grids, and the fit against brute force and old rules."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nndet_psma.systems.psma25d.planning.anchors import (
    DEFAULT_RATIOS,
    DEFAULT_SIZES,
    anchor_sides,
    choose_levels,
    fit_anchors,
    grid_offsets,
    placed_iou,
    score_anchors,
)

CENTRE = np.zeros((1, 2))


def _boxes(*pairs):
    heights, widths = np.array(pairs, dtype=np.float64).T
    return heights, widths


def _lesions(seed, count=60, median=20.0):
    rng = np.random.default_rng(seed)
    side, shape = median * np.exp(rng.normal(0, 0.45, count)), np.exp(rng.normal(0, 0.25, count))
    return side * np.sqrt(shape), side / np.sqrt(shape)


def _quantile_rule(heights, widths, levels):
    """The rule that the fit replaces: two sizes per level between the 5 and 95 % quantile, ratios at 10, 50, 90 %."""
    low, high = np.quantile(np.sqrt(heights * widths), [0.05, 0.95])
    low = max(low, 4.0)
    sizes = np.round(np.geomspace(low, max(high, low * 1.25 ** (2 * levels - 1)), 2 * levels), 1)
    ratios = sorted({round(float(q), 2) for q in np.quantile(heights / widths, [0.1, 0.5, 0.9])})
    return sizes.reshape(levels, 2).tolist(), ratios


def test_iou_by_hand():
    heights, widths = _boxes((10, 10), (20, 10), (4, 4))
    # centred 10 x 10: itself 1; inside 20 x 10: 100 / 200; around 4 x 4: 16 / 100
    assert placed_iou(heights, widths, (10, 10), CENTRE)[:, 0] == pytest.approx([1, 0.5, 0.16])
    # 5 apart in y: 5 x 10 = 50 of 150 shared; (20 + 10) / 2 - 5 = 10, still inside; (4 + 10) / 2 - 5 = 2: 8 of 108
    moved = placed_iou(heights, widths, (10, 10), np.array([[5.0, 0.0]]))
    assert moved[:, 0] == pytest.approx([50 / 150, 0.5, 8 / 108])
    assert placed_iou(heights, widths, (10, 10), np.array([[0.0, 30.0]])).max() == 0


def test_anchors_are_those_of_torchvision():
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    sizes, ratios = ((4.0, 5.0, 9.1), (17.0, 30.3, 33.3)), (0.5, 1.0, 1.37)
    made = AnchorGenerator(sizes, (ratios,) * 2).cell_anchors
    for level, cells in zip(sizes, made, strict=True):
        heights, widths = anchor_sides(level, ratios)
        assert heights.tolist() == (cells[:, 3] - cells[:, 1]).tolist()
        assert widths.tolist() == (cells[:, 2] - cells[:, 0]).tolist()


def test_offsets_are_even_and_nested():
    for stride in (4, 8, 16, 32, 64):
        offsets = grid_offsets(stride, 64)
        assert offsets.min() >= 0
        assert offsets.max() <= stride / 2
        assert offsets.mean(axis=0) == pytest.approx([stride / 4] * 2, rel=0.1)  # uniform on 0..stride / 2
    assert (grid_offsets(4, 64) <= grid_offsets(8, 64) + 1e-9).all()  # every coarse point is a fine one


def test_placed_score_is_that_of_shifted_boxes():
    """Against boxes and anchors with corners, all grid points around, for one box and two levels."""
    from nndet_psma.boxes.box import pairwise_iou
    from nndet_psma.systems.psma25d.planning.anchors import _PERIOD

    height, width = 11.0, 7.0
    sizes, ratios, strides = [[8.0], [12.0]], [1.0, 1.5], (4, 8)
    plastic = 1.32471795724474602596
    best = []
    for step in range(1, 65):
        centre = np.array([(0.5 + step / plastic) % 1, (0.5 + step / plastic**2) % 1]) * _PERIOD
        half = np.array([height, width]) / 2
        box = np.concatenate([centre - half, centre + half])[None]
        anchors = [
            [y - h / 2, x - w / 2, y + h / 2, x + w / 2]
            for level, stride in zip(sizes, strides, strict=True)
            for h, w in zip(*anchor_sides(level, ratios), strict=True)
            for y, x in itertools.product(np.arange(-16, 81, stride), repeat=2)
        ]
        best.append(pairwise_iou(box, np.array(anchors)).max())
    score = score_anchors(np.array([height]), np.array([width]), sizes, ratios, strides)
    assert score.placed_mean_best_iou == pytest.approx(np.mean(best))
    assert score.placed_recall_50 == pytest.approx(np.mean(np.array(best) >= 0.5))


def test_scores_by_hand():
    """Anchor 10 x 10 on boxes 10 x 10, 20 x 10, 5 x 5: IoU 1, 0.5, 0.25; the RPN's own default sees 16 % of 32 x 32."""
    heights, widths = _boxes((10, 10), (20, 10), (5, 5))
    score = score_anchors(heights, widths, [[10.0]], [1.0])
    assert score.mean_best_iou == pytest.approx(1.75 / 3)
    assert score.recall_50 == pytest.approx(2 / 3)
    assert score.placed_mean_best_iou < score.mean_best_iou
    small = fit_anchors(*_boxes((12.8, 12.8)), 1, 1, 1)
    # best default for a square of 12.8: 32 / sqrt(2) = 22.6 -> 22 wide, 46 high holds it: 163.84 / 1012; 32 x 32: 16 %
    assert small.default.mean_best_iou == pytest.approx(max(12.8**2 / 32**2, 12.8**2 / (22 * 46)))


@pytest.mark.parametrize("seed", range(4))
def test_fit_of_one_size_and_ratio_equals_brute_force(seed):
    heights, widths = _lesions(seed, 12, 14.0)
    found = fit_anchors(heights, widths, 1, 1, 1)
    best = max(
        score_anchors(heights, widths, [[size]], [ratio]).value
        for size in np.arange(4, 40, 0.5)
        for ratio in np.geomspace(0.4, 2.5, 25)
    )
    assert found.value >= 0.99 * best


def test_planted_clusters_are_recovered():
    """Squares of 8, 16 and 40 pixels; on a grid an anchor of one more step of 2 pixels may meet more places."""
    sides = np.repeat([8.0, 16.0, 40.0], 20)
    found = fit_anchors(sides, sides, 3, 1, 1)
    heights, widths = anchor_sides([s for level in found.sizes for s in level], found.ratios)
    assert heights == pytest.approx([8, 16, 40], abs=2)
    assert widths == pytest.approx([8, 16, 40], abs=2)
    assert found.mean_best_iou > 0.9
    assert found.recall_50 == 1
    shapes = fit_anchors(np.repeat([10.0, 30.0], 20), np.repeat([30.0, 10.0], 20), 1, 1, 2)
    assert shapes.mean_best_iou > 0.9  # one tall, one wide
    assert shapes.ratios[0] < 0.5 < 2 < shapes.ratios[1]


@settings(max_examples=6, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(2, 300), st.floats(0.25, 4.0)).map(lambda p: (p[0] * p[1] ** 0.5, p[0] / p[1] ** 0.5)),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from([3, 4]),
)  # fmt: skip
def test_never_worse_than_the_default_or_the_quantile_rule(pairs, levels):
    heights, widths = _boxes(*pairs)
    found = fit_anchors(heights, widths, levels)
    old = score_anchors(heights, widths, *_quantile_rule(heights, widths, levels))
    assert found.placed_mean_best_iou >= found.default.placed_mean_best_iou - 1e-9
    assert found.placed_mean_best_iou >= old.placed_mean_best_iou - 1e-9
    _check_layout(found, levels, 2, 3)


def _check_layout(found, levels, per_level, ratios):
    sizes = [size for level in found.sizes for size in level]
    assert [len(level) for level in found.sizes] == [per_level] * levels
    assert sizes == sorted(set(sizes))
    assert len(sizes) == levels * per_level
    assert sizes[0] >= 4
    assert found.ratios == sorted(set(found.ratios))
    assert len(found.ratios) == ratios
    assert 0 < found.ratios[0] <= found.ratios[-1] <= 5


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("levels", "median"), [(2, 10.0), (3, 20.0), (4, 40.0)])
def test_better_on_lesions_of_usual_spread(seed, levels, median):
    heights, widths = _lesions(seed, 200, median)
    found = fit_anchors(heights, widths, levels)
    old = score_anchors(heights, widths, *_quantile_rule(heights, widths, levels))
    assert found.placed_mean_best_iou > old.placed_mean_best_iou + 0.01
    assert found.placed_recall_50 >= old.placed_recall_50
    assert found.recall_50 > 0.94
    assert found.default == score_anchors(heights, widths, DEFAULT_SIZES, DEFAULT_RATIOS, (4, 8, 16, 32, 64))


@pytest.mark.parametrize(
    "pairs", [[(9, 7)], [(12, 12)] * 50, [(1, 1), (2, 1)], [(10, 12)] * 30 + [(4000, 3), (9000, 8000)]]
)
@pytest.mark.parametrize(("levels", "per_level", "ratios"), [(1, 1, 1), (2, 2, 3), (4, 3, 2)])
def test_degenerate_boxes(pairs, levels, per_level, ratios):
    found = fit_anchors(*_boxes(*pairs), levels, per_level, ratios)
    _check_layout(found, levels, per_level, ratios)
    assert 0 < found.placed_mean_best_iou <= found.mean_best_iou + 1e-9 <= 1 + 1e-9


def test_result_depends_on_the_boxes_only():
    heights, widths = _lesions(3, 5000)  # more than are used
    order = np.random.default_rng(0).permutation(5000)
    first, second = fit_anchors(heights, widths, 2), fit_anchors(heights[order], widths[order], 2)
    assert first == second


@pytest.mark.parametrize(
    ("heights", "widths", "counts", "match"),
    [
        ([], [], (2, 2, 3), "0 heights, 0 widths"),
        ([5.0], [5.0, 6.0], (2, 2, 3), "1 heights, 2 widths"),
        ([5.0, 0.0], [5.0, 6.0], (2, 2, 3), "positive and finite"),
        ([5.0, np.nan], [5.0, 6.0], (2, 2, 3), "positive and finite"),
        ([5.0], [5.0], (5, 2, 3), "found 5, 2, 3"),
        ([5.0], [5.0], (2, 0, 3), "found 2, 0, 3"),
        ([5.0], [5.0], (2, 2, 4), "found 2, 2, 4"),
    ],
)
def test_what_cannot_be_fitted(heights, widths, counts, match):
    with pytest.raises(ValueError, match=match):
        fit_anchors(np.array(heights), np.array(widths), *counts)


@pytest.mark.parametrize(("side", "levels"), [(3, 2), (10, 2), (20, 2), (25, 3), (40, 3), (50, 4), (500, 4)])
def test_levels_follow_the_side(side, levels):
    """A stride is used from about 1.4 times its length: 22 pixels for stride 16, 45 for stride 32."""
    squares = np.full(30, float(side))
    assert choose_levels(squares, squares) == list(range(1, levels + 1))


def test_levels_need_five_per_cent_of_the_lesions():
    small = np.full(95, 10.0)
    with_large = [np.concatenate([small, np.full(n, 60.0)]) for n in (4, 5)]
    assert [len(choose_levels(sides, sides)) for sides in with_large] == [2, 4]
