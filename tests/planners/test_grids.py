"""Starting values of the post-processing and the values the sweep tries."""

from __future__ import annotations

import numpy as np
import pytest
from planner_samples import table_2_histogram

from nndet_psma.artifacts.fingerprint import Histogram
from nndet_psma.core.schema import from_plain
from nndet_psma.planners.sweep_values import paper_grid, postproc_defaults, postproc_grid
from nndet_psma.postproc.steps.settings import PostprocSettings


def test_grid_holds_off_and_the_papers_values() -> None:
    # 100 lesion voxels at each of 80..160 HU in steps of 20: the 75 % quantile is 140, the 99 % quantile 160
    histogram = Histogram.of(np.repeat([80, 100, 120, 140, 160], 100))
    grid = postproc_grid(histogram, 6.48, voters=5)
    assert grid["zone_mm"][0] is None
    # ten pixels of 0.648 mm
    assert grid["zone_mm"][1:] == pytest.approx([0.648 * i for i in range(1, 11)])
    assert grid["hu_threshold"] == [None, 140.0, 145.0, 150.0, 155.0, 160.0]
    assert grid["hu_quantile"] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert grid["min_votes"] == [1, 2, 3, 4, 5]
    assert grid["vote_iou"] == [0.1, 0.2, 0.3]
    assert grid["hit_iou"] == pytest.approx([0.1 * i for i in range(1, 11)])


def test_grid_without_ctv_and_ct_leaves_filters_off() -> None:
    grid = postproc_grid(Histogram(), None, voters=1)
    assert grid["zone_mm"] == [None]
    assert grid["hu_threshold"] == [None]
    assert grid["min_votes"] == [1]


def test_defaults_are_off_and_fit_the_settings() -> None:
    settings = from_plain(PostprocSettings, postproc_defaults(6.48))
    assert settings.zone_mm == 6.48
    assert settings.hu_threshold is None
    assert settings.min_votes == 1
    assert settings.fold_score == "present"
    assert postproc_defaults(None)["zone_mm"] is None
    assert set(postproc_grid(Histogram(), None, 1)) <= set(postproc_defaults(None))


def test_the_papers_grid_is_table_3() -> None:
    grid = paper_grid(has_ct=True, margin_mm=6.48, voters=5)
    tenths = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert grid["zone_mm"] == [None, *(pytest.approx(0.648 * i) for i in range(1, 11))]
    assert grid["hu_threshold"] == [None, 80.0, 100.0, 120.0, 140.0, 160.0]
    assert grid["hu_quantile"] == tenths
    assert grid["vote_iou"] == tenths
    assert grid["min_votes"] == [1, 2, 3, 4, 5]


def test_the_papers_grid_ends_where_nothing_is_seen() -> None:
    grid = paper_grid(has_ct=False, margin_mm=2.0, voters=1)
    assert grid["zone_mm"] == [None, 0.648, 1.296, 1.944]
    assert grid["hu_threshold"] == [None]
    assert paper_grid(has_ct=True, margin_mm=None, voters=1)["zone_mm"] == [None]


@pytest.mark.parametrize("margin", [None, 6.48, 12.3])
@pytest.mark.parametrize("paper", [False, True])
def test_every_grid_value_is_a_valid_setting(margin: float | None, paper: bool) -> None:
    defaults = postproc_defaults(margin)
    grid = paper_grid(True, margin, 3) if paper else postproc_grid(table_2_histogram(), margin, 3)
    for name, values in grid.items():
        for value in values:
            assert getattr(from_plain(PostprocSettings, defaults | {name: value}), name) == value
