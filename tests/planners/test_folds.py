"""Folds: patients whole, a lesion in every one, and what is said when strata are too small."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planner_samples import case, fingerprint

from nndet_psma.artifacts.fingerprint import CaseFingerprint, Fingerprint
from nndet_psma.core.errors import UserError
from nndet_psma.planners.folds import FoldChoice, choose_folds, choose_strata, fold_count


def made_of(cases: list[CaseFingerprint]) -> Fingerprint:
    return replace(fingerprint(cases=1), cases=cases)


def folds_of(found: Fingerprint, splits: Path = Path("nowhere"), num_folds: int = 5) -> FoldChoice:
    return choose_folds(found, splits, num_folds=num_folds, stratify_by="nccn_risk", seed=1)


@pytest.mark.parametrize(
    ("wanted", "patients", "with_lesions", "expected"),
    [
        (5, 100, 100, 5),
        (5, 10, 10, 5),
        (5, 9, 9, 4),
        (5, 3, 3, 2),
        (2, 50, 50, 2),
        (5, 50, 3, 3),
        (5, 2, 2, 2),
    ],
)
def test_fold_count(wanted: int, patients: int, with_lesions: int, expected: int) -> None:
    count, notes = fold_count(wanted, patients, with_lesions)
    assert count == expected
    assert bool(notes) == (count != wanted)


def test_the_reason_for_fewer_folds_is_said() -> None:
    assert fold_count(5, 9, 9)[1] == ["4 folds instead of 5: too few patients"]
    assert fold_count(5, 50, 3)[1] == ["3 folds instead of 5: too few patients with lesions"]


@pytest.mark.parametrize(("patients", "with_lesions"), [(1, 1), (10, 1)])
def test_lesions_in_one_patient_are_refused(patients: int, with_lesions: int) -> None:
    with pytest.raises(
        UserError, match=f"lesions in at least two patients.*{patients} patients, {with_lesions} with"
    ):
        fold_count(5, patients, with_lesions)


def test_no_lesion_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="no training case has a lesion"):
        fold_count(5, 10, 0)


def test_one_case_is_refused() -> None:
    with pytest.raises(UserError, match="one to train on, one to tune on"):
        folds_of(made_of([case(0)]))


def test_a_small_stratum_joins_the_others_aloud() -> None:
    # 6 high, 6 low, 1 unknown and 2 metastatic patients in 3 folds: the last two values cannot be in every fold
    risks = ["high"] * 6 + ["low"] * 6 + ["unknown"] + ["metastatic"] * 2
    cases = [replace(case(i), stratum=risk) for i, risk in enumerate(risks)]
    choice = folds_of(made_of(cases), num_folds=3)
    assert "too few patients of 'metastatic', 'unknown' to be in every fold" in choice.evidence
    of = {c.case_id: c.stratum for c in cases}
    for fold in choice.folds:
        held = [of[case_id] for case_id in fold.val]
        assert (held.count("high"), held.count("low")) == (2, 2)
        assert len(held) == 5  # and one of the three others each


def test_a_column_that_nobody_has_is_not_said_to_spread_folds() -> None:
    cases = made_of([replace(case(str(i)), stratum="") for i in range(6)])
    assert folds_of(cases).rule == "folds.choose_folds: patients whole, spread by lesion count"
    cases = made_of([replace(case(str(i)), stratum="high") for i in range(6)])
    assert (
        folds_of(cases).rule == "folds.choose_folds: patients whole, spread by 'nccn_risk' and lesion count"
    )


def test_lesion_counts_split_a_stratum_that_is_large_enough() -> None:
    # of each risk 2 patients with 1 lesion and 2 with 4: in 2 folds, every fold gets one of each kind
    cases = [
        replace(case(4 * i + j, lesions=n), stratum=risk)
        for i, risk in enumerate(("high", "low"))
        for j, n in enumerate((1, 1, 4, 4))
    ]
    by_patient = {c.patient_id: [c] for c in cases}
    coarse, fine, notes = choose_strata(by_patient, 2)
    assert notes == []
    assert set(coarse.values()) == {"high", "low"}
    assert sorted(set(fine.values())) == ["high/few", "high/many", "low/few", "low/many"]
    kinds = {c.case_id: (c.stratum, len(c.lesions)) for c in cases}
    for fold in folds_of(made_of(cases), num_folds=2).folds:
        assert sorted(kinds[case_id] for case_id in fold.val) == [
            ("high", 1),
            ("high", 4),
            ("low", 1),
            ("low", 4),
        ]


def test_halves_too_small_for_the_folds_are_not_made() -> None:
    cases = [case(i, lesions=n) for i, n in enumerate((1, 1, 1, 4))]
    _, fine, _ = choose_strata({c.patient_id: [c] for c in cases}, 2)
    assert set(fine.values()) == {"/"}


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 3), st.integers(1, 3)),
        min_size=2,
        max_size=14,
    ),
    st.integers(2, 5),
)
def test_every_fold_has_a_lesion_and_patients_stay_whole(
    patients: list[tuple[str, int, int]], wanted: int
) -> None:
    cases = [
        replace(case(10 * p + k, lesions=lesions), patient_id=f"patient_{p}", stratum=risk)
        for p, (risk, lesions, scans) in enumerate(patients)
        for k in range(scans)
    ]
    found = made_of(cases)
    if sum(lesions > 0 for _, lesions, _ in patients) < 2:
        with pytest.raises(UserError):
            folds_of(found, num_folds=wanted)
        return
    choice = folds_of(found, num_folds=wanted)
    of = {c.case_id: c for c in cases}
    assert sorted(case_id for fold in choice.folds for case_id in fold.val) == sorted(of)
    for fold in choice.folds:
        assert any(of[case_id].lesions for case_id in fold.val)
        assert any(of[case_id].lesions for case_id in fold.train)
        assert not {of[c].patient_id for c in fold.val} & {of[c].patient_id for c in fold.train}
        assert sorted(fold.train + fold.val) == sorted(of)


def test_the_users_folds_win_and_are_judged(tmp_path: Path) -> None:
    file = tmp_path / "splits.json"
    found = made_of([case(0), case(1), case(2, lesions=0)])
    file.write_text(json.dumps([{"train": ["case_0", "case_1"], "val": ["case_2"]}]))
    choice = folds_of(found, file)
    assert [fold.val for fold in choice.folds] == [["case_2"]]
    assert choice.rule == "splits.json of the user"
    assert "no lesion to tune on in fold 0" in choice.evidence
    file.write_text(json.dumps([{"train": ["case_2"], "val": ["case_0"]}]))
    with pytest.raises(UserError, match="fold 0 would train without a lesion"):
        folds_of(found, file)
