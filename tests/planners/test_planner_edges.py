"""Corners of planning: names of windows, flat modalities, cases without lesions."""

from __future__ import annotations

from dataclasses import replace

from planner_samples import TABLE_2, fingerprint, regions

from nndet_psma.artifacts.plan import FoldPlan, Target
from nndet_psma.planners.detector_options import DetectorOptions
from nndet_psma.planners.folds import FoldChoice
from nndet_psma.systems.psma25d.planner import PSMA25DPlanner

CPU = Target("cpu", 0.0)


def _plan(found, **options):
    folds = FoldChoice([FoldPlan(["case_0"], ["case_1"])], "by hand", "two cases")
    return PSMA25DPlanner().plan(
        found, DetectorOptions(**options), plan_id="P", trainer="T", target=CPU, folds=folds
    )


def test_window_names_are_distinct_and_safe_in_file_names():
    # -97..310 is -97.4..310 but for rounding
    windows = _plan(fingerprint(), soft_tissue=(-97.4, 310.0), max_voters=5).windows
    assert [(w.lower, w.upper) for w in windows] == [*TABLE_2[1:], (-97.4, 310.0)]
    assert [w.name for w in windows][::3] == ["hu_m90_169", "hu_m97p4_310"]


def test_a_modality_without_contrast_still_has_a_range():
    found = fingerprint(ct=False, pet=True)
    flat = regions(0.0, 0.0, 0.0, 0.0)
    found = replace(found, cases=[replace(case, intensities={"PET": flat}) for case in found.cases])
    assert [(s.lower, s.upper) for s in _plan(found).scalings] == [(0.0, 1.0)]


def test_cases_without_lesions_are_planned_with_the_others():
    found, empty = fingerprint(), fingerprint(lesions=0)
    mixed = _plan(replace(found, cases=[found.cases[0], *empty.cases[1:]]))
    assert mixed.windows == _plan(found).windows
    # 2 lesions x 2 slices of 6 x 12 slices of the CTV
    assert mixed.decisions["positive_fraction"].evidence.startswith("4 of 72 slices")
