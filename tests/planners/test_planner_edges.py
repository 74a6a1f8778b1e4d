"""Corners of planning: names of windows, flat modalities, empty schedules, values the sweep will try."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planner_samples import TABLE_2, TAILS, fingerprint, table_2_histogram

from nndet_psma.artifacts.plan import FoldPlan, Target
from nndet_psma.core.schema import from_plain
from nndet_psma.planners import rules
from nndet_psma.planners.grids import postproc_defaults, postproc_grid
from nndet_psma.planners.machine import choose_batch_size, estimate_memory_gb
from nndet_psma.planners.options import PlannerOptions
from nndet_psma.planners.psma25d import PSMA25DPlanner
from nndet_psma.planners.schedule import schedule_for
from nndet_psma.postproc.settings import PostprocSettings

CPU, GPU = Target("cpu", 0.0), Target("gpu", 24.0)


def _plan(found, **options):
    folds = [FoldPlan(["case_0"], ["case_1"])]
    return PSMA25DPlanner().plan(
        found, PlannerOptions(**options), plan_id="P", trainer="T", target=CPU, folds=folds
    )


def test_window_names_are_distinct_and_safe_in_file_names():
    windows = rules.quantile_windows(table_2_histogram(), TAILS, (-97.4, 310.0))
    assert [(w.lower, w.upper) for w in windows] == [*TABLE_2, (-97.4, 310.0)]
    assert [w.name for w in windows][::4] == ["hu_m97_310", "hu_m97p4_310"]
    assert _plan(fingerprint(), soft_tissue=(-97.4, 310.0), max_voters=5).windows == windows


def test_a_modality_without_contrast_still_has_a_range():
    found = fingerprint(ct=False, pet=True)
    flat = replace(found.cases[0].intensities["PET"], percentile_99_5=0.0, lesion_percentile_50=0.0)
    found = replace(found, cases=[replace(case, intensities={"PET": flat}) for case in found.cases])
    assert [(s.lower, s.upper) for s in _plan(found).scalings] == [(0.0, 1.0)]


def test_cases_without_lesions_are_planned_with_the_others():
    found, empty = fingerprint(), fingerprint(lesions=0)
    mixed = _plan(replace(found, cases=[found.cases[0], *empty.cases[1:]]))
    assert mixed.windows == _plan(found).windows
    # 2 lesions x 2 slices of 6 x 12 slices of the CTV
    assert mixed.decisions["positive_fraction"].evidence.startswith("4 of 72 slices")


@pytest.mark.parametrize("target", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("factor", [0.0, 0.01, 0.5, 3.0])
def test_milestones_and_warm_up_lie_inside_the_run(target, factor):
    schedule = schedule_for(target, 50, 8, 0.5, factor)
    for stage in (schedule.wsi, schedule.search):
        assert stage.milestones == sorted(stage.milestones)
        assert all(0 <= m <= stage.iterations for m in stage.milestones)
        assert 0 <= stage.warmup <= stage.iterations


def test_batch_fits_the_memory_and_one_more_would_not():
    batch = choose_batch_size(GPU, "resnext101_32x8d", 640 * 640)
    # 2 GB weights + n * (0.4096 M pixels * 11 kB + 0.35 GB = 4.8556 GB) <= 80 % of 24 GB: n = 3
    assert batch == 3
    assert estimate_memory_gb("resnext101_32x8d", 640 * 640, batch) <= 0.8 * 24
    assert estimate_memory_gb("resnext101_32x8d", 640 * 640, batch + 1) > 0.8 * 24


@pytest.mark.parametrize("margin", [None, 6.48, 12.3])
def test_every_grid_value_is_a_valid_setting(margin):
    defaults = postproc_defaults(margin)
    for name, values in postproc_grid(table_2_histogram(), margin, 3).items():
        for value in values:
            assert getattr(from_plain(PostprocSettings, defaults | {name: value}), name) == value
