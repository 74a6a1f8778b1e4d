"""Folds."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.splits import Fold, make_folds, read_splits, write_splits


def _folds(case_ids, num_folds=2, seed=0, patients=None, strata=None, lesions=None):
    return make_folds(
        case_ids,
        patients=patients or {},
        strata=strata or {},
        lesion_counts=lesions or {},
        num_folds=num_folds,
        seed=seed,
    )


def test_lesions_are_spread():
    # by falling count: a(5) -> 0, b(4) -> 1, then two patients each: c(3) -> fold 1 would have 7, fold 0 has 5;
    # strata first: both folds hold one patient, so the fewest lesions decide: c -> fold 1 (4 < 5), d(1) -> fold 0
    folds = _folds("abcd", lesions={"a": 5, "b": 4, "c": 3, "d": 1})
    assert [fold.val for fold in folds] == [("a", "d"), ("b", "c")]
    assert folds[0].train == ("b", "c")


def test_strata_are_spread():
    # four high-risk and four low-risk patients over two folds: two of each everywhere, whatever the lesions
    strata = {case: "high" if case < "e" else "low" for case in "abcdefgh"}
    lesions = {case: 10 if case < "e" else 0 for case in "abcdefgh"}
    for seed in range(5):
        for fold in _folds("abcdefgh", strata=strata, lesions=lesions, seed=seed):
            assert sorted(strata[case] for case in fold.val) == ["high", "high", "low", "low"]


def test_patients_stay_together():
    patients = {"a1": "A", "a2": "A", "b1": "B", "b2": "B"}
    folds = _folds(["a1", "b1", "a2", "b2"], patients=patients)
    assert {fold.val for fold in folds} == {("a1", "a2"), ("b1", "b2")}


def test_seed_decides_ties_and_order_of_input_does_not():
    cases = [f"c{i}" for i in range(10)]
    assert _folds(cases) == _folds(list(reversed(cases)))
    assert len({tuple(fold.val for fold in _folds(cases, seed=seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize(("cases", "num_folds"), [("ab", 3), ("", 2)])
def test_too_few_patients(cases, num_folds):
    with pytest.raises(UserError, match="fewer patients than folds"):
        _folds(cases, num_folds)


def test_one_fold_is_none():
    with pytest.raises(UserError, match="at least two folds"):
        _folds("abc", 1)


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from(["x", "y", "z"]), st.integers(0, 9)), min_size=1
    ),
    num_folds=st.integers(2, 5),
    seed=st.integers(0, 99),
)
def test_every_case_is_validated_once_and_no_patient_is_torn(rows, num_folds, seed):
    cases = [f"c{i}" for i in range(len(rows))]
    patients = {case: f"P{row[0]}" for case, row in zip(cases, rows, strict=True)}
    strata = {case: row[1] for case, row in zip(cases, rows, strict=True)}
    lesions = {case: row[2] for case, row in zip(cases, rows, strict=True)}
    if len(set(patients.values())) < num_folds:
        with pytest.raises(UserError):
            _folds(cases, num_folds, seed, patients, strata, lesions)
        return
    folds = _folds(cases, num_folds, seed, patients, strata, lesions)
    assert sorted(case for fold in folds for case in fold.val) == sorted(cases)
    for fold in folds:
        assert fold.val
        assert sorted(fold.train + fold.val) == sorted(cases)
        assert not {patients[case] for case in fold.train} & {patients[case] for case in fold.val}


def test_round_trip(tmp_path):
    folds = [Fold(("a", "b"), ("c",)), Fold(("b", "c"), ("a",))]
    write_splits(tmp_path / "splits.json", folds)
    assert read_splits(tmp_path / "splits.json", case_ids="abc", patients={}) == folds


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "not a list of folds"),
        ([], "not a list of folds"),
        ([["a"]], "fold 0 has no list 'train'"),
        ([{"train": ["a"]}], "fold 0 has no list 'val'"),
        ([{"train": ["a"], "val": []}], "fold 0 has no list 'val'"),
        ([{"train": ["a"], "val": [2]}], "fold 0 has no list 'val'"),
        ([{"train": ["a"], "val": ["x"]}], "fold 0 names cases that do not exist; found x"),
        ([{"train": ["a", "b"], "val": ["b"]}], "trains and validates on the same case; found b"),
        ([{"train": ["a"], "val": ["a2"]}], "the same patient; found a in train, a2 in val"),
        ([{"train": ["a"], "val": ["b"]}, {"train": ["a"], "val": ["b"]}], "b is validated in several folds"),
    ],
)
def test_bad_override(tmp_path, content, message):
    (tmp_path / "splits.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_splits(
            tmp_path / "splits.json", case_ids=["a", "a2", "b"], patients={"a": "A", "a2": "A", "b": "B"}
        )
