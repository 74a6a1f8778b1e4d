"""Every planning rule alone."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nndet_psma.planners import rules


def test_spacing_is_the_median_with_one_value_in_plane() -> None:
    spacings = np.array([[3.0, 0.8, 0.8], [5.0, 0.7, 0.7], [2.0, 0.9, 0.9]])
    assert rules.target_spacing(spacings) == (3.0, 0.8, 0.8)
    assert rules.target_spacing(np.array([[2.0, 1.0, 4.0]])) == (2.0, 2.0, 2.0)  # sqrt(1 * 4)


def test_margin_is_never_below_the_papers() -> None:
    assert rules.ctv_margin([], 0.99, 6.48) == (6.48, 1.0)
    assert rules.ctv_margin([0.0, 1.3, 2.0], 0.99, 6.48) == (6.48, 1.0)


def test_margin_covers_the_share() -> None:
    outside = [0.0] * 8 + [9.001, 30.0]
    # 90 % of ten lesions are nine: the ninth farthest, rounded up to hundredths
    assert rules.ctv_margin(outside, 0.9, 6.48) == (9.01, 0.9)
    assert rules.ctv_margin(outside, 1.0, 6.48) == (30.0, 1.0)
    assert rules.ctv_margin(outside, 0.8, 6.48) == (6.48, 0.8)


@given(st.lists(st.integers(0, 40_000), min_size=1, max_size=60), st.floats(0.01, 1.0))
def test_margin_property(microns: list[int], coverage: float) -> None:
    outside = [value / 1000 for value in microns]
    margin, share = rules.ctv_margin(outside, coverage, 6.48)
    assert margin >= 6.48
    assert share == np.mean([value <= margin for value in outside])
    assert share >= coverage - 1e-12


@pytest.mark.parametrize(
    ("height", "spacing", "expected"),
    [
        (3.0, 5.0, 1),  # thinner than a slice: the paper's one neighbour
        (15.0, 5.0, 1),  # three slices: one below, one above
        (15.1, 5.0, 2),
        (25.0, 5.0, 2),
        (10.0, 1.0, 3),  # would be five
    ],
)
def test_neighbours(height: float, spacing: float, expected: int) -> None:
    assert rules.neighbour_slices(height, spacing, deepest_case=40) == expected
    assert rules.neighbour_slices(height, spacing, deepest_case=1) == 0


@pytest.mark.parametrize(
    ("side", "wanted", "plane", "budget", "expected"),
    [
        (10.0, 32.0, (100, 100), 640_000, 3.2),  # 10 voxels become 32 pixels
        (10.0, 32.0, (300, 300), 360_000, 2.0),  # 600 x 600 pixels are what the budget holds
        (50.0, 32.0, (100, 100), 640_000, 1.0),  # large lesions are not shrunk
        (50.0, 32.0, (1000, 1000), 250_000, 0.5),  # unless the budget asks for it
        (2.0, 32.0, (50, 50), 640_000, 6.0),  # at most 6
        (10.0, 32.9, (100, 100), 640_000, 3.25),  # steps of 0.05, downwards
    ],
)
def test_scale(side: float, wanted: float, plane: tuple, budget: int, expected: float) -> None:
    assert rules.detector_scale(side, wanted, plane, budget) == pytest.approx(expected)


@given(
    st.floats(10, 600),
    st.floats(10, 600),
    st.floats(0.1, 6),
    st.sampled_from([4, 8, 16, 32]),
)
def test_input_size_is_the_smallest_that_holds_the_plane(h: float, w: float, scale: float, n: int) -> None:
    for size, side in zip(rules.input_size((h, w), scale, n), (h, w), strict=True):
        assert size % n == 0
        assert size >= side * scale - 1e-6
        assert size - n < side * scale + 1e-6


@given(st.floats(1, 50), st.floats(20, 500), st.floats(20, 500))
def test_scale_keeps_the_budget(side: float, height: float, width: float) -> None:
    scale = rules.detector_scale(side, 16.0, (height, width), 28_000)
    assert scale <= 0.1 or scale**2 * height * width <= 28_000 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (2.0, [1, 2]),
        (23.9, [1, 2]),  # stride 8 is two thirds of 12, stride 16 of 24
        (24.0, [1, 2, 3]),
        (48.0, [1, 2, 3, 4]),
        (500.0, [1, 2, 3, 4]),
    ],
)
def test_levels(side: float, expected: list[int]) -> None:
    assert rules.pyramid_levels(side) == expected


@given(st.lists(st.floats(1, 200), min_size=1, max_size=40), st.integers(2, 4))
def test_anchors_ascend_with_two_per_level(sides: list[float], levels: int) -> None:
    sizes = rules.anchor_sizes(np.array(sides), levels)
    flat = [size for level in sizes for size in level]
    assert [len(level) for level in sizes] == [2] * levels
    assert all(b / a >= 1.2 for a, b in pairwise(flat))  # 1.25 before rounding
    assert flat[0] >= 4.0
    assert flat[0] <= max(4.0, np.quantile(sides, 0.05)) + 0.051
    assert flat[-1] >= np.quantile(sides, 0.95) - 0.051


def concentric_iou(heights: np.ndarray, widths: np.ndarray, sizes: list[float], ratios: list[float]) -> float:
    """Mean over boxes of the best IoU with an anchor of the same centre."""
    anchors = np.array([(s * math.sqrt(r), s / math.sqrt(r)) for s in sizes for r in ratios])
    overlap = np.minimum(heights[:, None], anchors[:, 0]) * np.minimum(widths[:, None], anchors[:, 1])
    union = (heights * widths)[:, None] + anchors.prod(axis=1) - overlap
    return float((overlap / union).max(axis=1).mean())


def test_anchors_fit_small_lesions_better_than_torchvisions() -> None:
    rng = np.random.default_rng(0)
    heights, widths = rng.uniform(8, 30, (2, 300))
    planned = rules.anchor_sizes(np.sqrt(heights * widths), 3)
    ours = concentric_iou(
        heights, widths, [size for level in planned for size in level], rules.aspect_ratios(heights, widths)
    )
    torchvisions = concentric_iou(heights, widths, [32, 64, 128, 256, 512], [0.5, 1.0, 2.0])
    assert ours > 0.7
    assert ours > torchvisions + 0.2


def test_aspect_ratios_are_quantiles_once_each() -> None:
    heights = np.array([1.0, 2.0, 4.0, 4.0, 8.0, 16.0, 2.0, 4.0, 4.0, 4.0, 4.0])
    # height / width with width 4, sorted: .25 .5 .5 1 1 1 1 1 1 2 4; positions 1, 5 and 9 of 0..10
    assert rules.aspect_ratios(heights, np.full(11, 4.0)) == [0.5, 1.0, 2.0]
    assert rules.aspect_ratios(np.ones(5), np.ones(5)) == [1.0]


@pytest.mark.parametrize(
    ("positive", "total", "expected"), [(1, 100, 0.5), (30, 100, 0.6), (90, 100, 0.75), (0, 0, 0.5)]
)
def test_positive_fraction(positive: int, total: int, expected: float) -> None:
    assert rules.positive_fraction(positive, total) == pytest.approx(expected)
