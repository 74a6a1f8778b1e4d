"""Ranges of the modalities: in their own unit, or in standard deviations of the case."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planner_samples import fingerprint, statistics

from nndet_psma.core.errors import UserError
from nndet_psma.planners.ledger import Ledger
from nndet_psma.planners.scalings import plan_scalings


def of(name: str, bodies, lesions=()):
    """One modality with the given body statistics case by case."""
    base = fingerprint(ct=False, pet=False, ctv=False, cases=len(bodies))
    cases = []
    for i, (case, body) in enumerate(zip(base.cases, bodies, strict=True)):
        found = {"body": body}
        if i < len(lesions):
            found["lesion"] = statistics(lesions[i], lesions[i], lesions[i])
        cases.append(replace(case, intensities={name: found}))
    ledger = Ledger()
    scalings = plan_scalings(ledger, replace(base, modalities={"0": name}, cases=cases), None, None)
    return scalings, ledger.decisions["scalings"].evidence


def test_suv_keeps_its_unit() -> None:
    bodies = [statistics(0.0, 1.0, high) for high in (4.0, 6.0, 5.0)]
    (scaling,), evidence = of("PET", bodies, lesions=(9.0, 2.0))
    # the median of the 99.5 % quantiles is 5, that of the lesions 5.5
    assert (scaling.lower, scaling.upper, scaling.zscore) == (0.0, 5.5, False)
    assert evidence == "PET: 0 to 5.5"


@pytest.mark.parametrize("name", ["DWI", "t2", "anything"])
def test_arbitrary_units_are_standard_deviations(name: str) -> None:
    # two scanners, one with ten times the numbers: in standard deviations they agree
    first = replace(statistics(0.0, 100.0, 400.0), mean=100.0, std=50.0)
    second = replace(statistics(0.0, 1000.0, 4000.0), mean=1000.0, std=500.0)
    (scaling,), evidence = of(name, [first, second])
    assert (scaling.lower, scaling.upper, scaling.zscore) == (-2.0, 6.0, True)
    assert "standard deviations of the case" in evidence


@pytest.mark.parametrize("name", ["ADC", "bladder", "PROSTATE", "PET"])
def test_units_and_masks_are_kept(name: str) -> None:
    (scaling,), _ = of(name, [statistics(0.0, 0.0, 1.0)])
    assert not scaling.zscore


def test_a_constant_image_has_a_range() -> None:
    flat = replace(statistics(7.0, 7.0, 7.0), mean=7.0, std=0.0)
    (scaling,), _ = of("T2", [flat])
    assert (scaling.lower, scaling.upper) == (0.0, 1.0)


def _with_ctv(names, ctv):
    base = fingerprint(ct=False, pet=False, ctv=False, cases=1)
    modalities = {str(index): name for index, name in enumerate(names)}
    cases = [
        replace(case, intensities={name: {"body": statistics(0.0, 1.0, 4.0)} for name in names})
        for case in base.cases
    ]
    return plan_scalings(
        Ledger(), replace(base, modalities=modalities, cases=cases), 0, ctv, ctv_distance_mm=12.0
    )


def test_the_distance_to_the_search_region_comes_last() -> None:
    *_, last = _with_ctv(["CT", "CTV", "PET"], 1)
    assert (last.modality, last.name, last.lower, last.upper, last.zscore) == (1, "CTV", 0.0, 12.0, False)
    with pytest.raises(UserError, match=r"no modality is the CTV.*found CT, PET.*ctv_distance_mm"):
        _with_ctv(["CT", "PET"], None)


@pytest.mark.parametrize("name", ["VESSELS", "bowel", "ORGANS", "BLADDER"])
def test_masks_of_organs_are_shown_as_they_are(name: str) -> None:
    """A z-score of a mask would depend on how large the organ is."""
    (scaling, _) = _with_ctv(["CT", "CTV", name], 1)
    assert (scaling.lower, scaling.upper, scaling.zscore) == (0.0, 1.0, False)
