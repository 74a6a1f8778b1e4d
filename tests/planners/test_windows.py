"""HU windows: table 2 of the paper, and what is merged or left out with which reason."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planner_samples import TABLE_2, TAILS, table_2_histogram

from nndet_psma.artifacts.channels import Window
from nndet_psma.artifacts.fingerprint import Histogram
from nndet_psma.planners.windows import (
    MAX_OVERLAP,
    MIN_WIDTH_HU,
    distinct_windows,
    make_window,
    most_different_windows,
    quantile_windows,
    window_overlap,
)

SOFT_TISSUE = (-125.0, 225.0)


def limits(windows: list[Window]) -> list[tuple[float, float]]:
    return [(window.lower, window.upper) for window in windows]


def test_windows_are_those_of_table_2() -> None:
    choice = quantile_windows(table_2_histogram(), TAILS, SOFT_TISSUE)
    assert limits(choice.windows) == [*TABLE_2, SOFT_TISSUE]
    assert choice.windows[0].name == "hu_m97_310"
    assert choice.windows[-1].name == "hu_m125_225"
    assert choice.notes == []


def test_windows_equal_to_soft_tissue_are_merged_into_it() -> None:
    # all tails of two values that fill half of the voxels each are the same window, and it is also soft tissue
    choice = quantile_windows(Histogram.of(np.repeat([-125, 225], 500)), TAILS, SOFT_TISSUE)
    assert limits(choice.windows) == [SOFT_TISSUE]
    assert choice.notes == ["-125..225 is merged into -125..225"] * 4


def test_nearly_equal_windows_are_one() -> None:
    # 0..196 in 0..200: 0.98; 0..180: 0.90 of 0..200
    choice = distinct_windows([(0, 200), (0, 196), (0, 180)], (500, 900))
    assert limits(choice.windows) == [(0, 200), (0, 180), (500, 900)]
    assert choice.notes == ["0..196 is merged into 0..200"]


@pytest.mark.parametrize("histogram", [Histogram(), Histogram.of(np.full(50, 40))])
def test_only_soft_tissue_remains_without_spread(histogram: Histogram) -> None:
    choice = quantile_windows(histogram, TAILS, SOFT_TISSUE)
    assert limits(choice.windows) == [SOFT_TISSUE]
    assert len(choice.notes) == (4 if histogram.total else 0)
    assert all("narrower than 50 HU" in note for note in choice.notes)


def test_window_overlap_by_hand() -> None:
    # -100..100 and 0..300 share 100 of 400 HU
    assert window_overlap(Window("a", -100, 100), Window("b", 0, 300)) == pytest.approx(0.25)
    assert window_overlap(Window("a", -100, 0), Window("b", 50, 100)) == 0


def test_most_different_windows_of_table_2() -> None:
    windows = quantile_windows(table_2_histogram(), TAILS, SOFT_TISSUE).windows
    # overlap with soft tissue (-125..225): 322/435 = .740, 259/350 = .740, 235/350 = .671, 220/350 = .629 -> -79..141;
    # then the largest overlap with either: -97..310 max(.740, 220/407) = .7402, -90..169 max(.740, .849) -> -97..310
    assert limits(most_different_windows(windows, 2)) == [(-79, 141), SOFT_TISSUE]
    assert limits(most_different_windows(windows, 3)) == [(-97, 310), (-79, 141), SOFT_TISSUE]
    assert most_different_windows(windows, 5) == windows
    assert most_different_windows(windows, 9) == windows
    assert most_different_windows(windows, 1) == windows[-1:]


def test_names_are_distinct_and_safe_in_file_names() -> None:
    assert make_window((-97.4, 310.0)).name == "hu_m97p4_310"
    assert make_window((-97.0, 310.0)).name == "hu_m97_310"


@given(st.lists(st.tuples(st.integers(-300, 200), st.integers(0, 500)), max_size=8))
def test_what_is_kept_is_wide_and_distinct(pairs: list[tuple[int, int]]) -> None:
    asked = [(float(low), float(low + width)) for low, width in pairs]
    choice = distinct_windows(asked, SOFT_TISSUE)
    assert len(choice.windows) + len(choice.notes) == len(asked) + 1
    assert choice.windows[-1] == make_window(SOFT_TISSUE)
    for i, window in enumerate(choice.windows):
        assert window.upper - window.lower >= MIN_WIDTH_HU
        assert all(window_overlap(window, other) <= MAX_OVERLAP for other in choice.windows[:i])
