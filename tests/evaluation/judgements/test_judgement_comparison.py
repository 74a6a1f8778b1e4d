"""Two models on the same objects."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_judgement_scores import NAMES, of_patients, row

from nndet_psma.evaluation.judgements.compare import compare_judgements

TRUTH = ["yes", "yes", "yes", "no", "no", "no"]
GOOD = of_patients(*zip([0.9, 0.8, 0.7, 0.3, 0.2, 0.6], TRUTH, strict=True))
POOR = of_patients(*zip([0.4, 0.3, 0.2, 0.1, 0.9, 0.6], TRUTH, strict=True))


def test_differences_by_hand():
    """GOOD is right in 5 (AUC 9/9), POOR in the fourth only (AUC: 1 of the nos lies below all three yes: 3/9)."""
    found = compare_judgements(GOOD, POOR, NAMES, names=("good", "poor"), draws=300)
    assert (found.first, found.second, found.num_objects, found.num_patients) == ("good", "poor", 6, 6)
    assert list(found.auc) == ["yes"]
    auc = found.auc["yes"]
    assert (auc.first, auc.second) == pytest.approx((1.0, 3 / 9))
    assert auc.difference == pytest.approx(6 / 9)
    assert found.accuracy.difference == pytest.approx(4 / 6)
    assert found.accuracy.ci_low > 0
    assert found.accuracy.p is None  # six patients are too few
    assert (found.both_right, found.only_first, found.only_second, found.both_wrong) == (1, 4, 0, 1)
    assert found.mcnemar_p == pytest.approx(2 * 0.5**4)  # binomial, two-sided


def _twice(rows):
    """The same objects, in twelve patients."""
    return [
        *rows,
        *(replace(each, patient_id=f"{each.patient_id}_b", case_id=f"{each.case_id}_b") for each in rows),
    ]


def test_ten_patients_are_enough_for_a_p_value():
    found = compare_judgements(_twice(GOOD), _twice(POOR), NAMES, draws=300)
    assert found.num_patients == 12
    assert found.accuracy.p < 0.05


def test_the_same_model_does_not_differ():
    found = compare_judgements(_twice(GOOD), _twice(GOOD)[::-1], NAMES, draws=50)
    assert (found.accuracy.difference, found.accuracy.ci_low, found.accuracy.ci_high) == (0, 0, 0)
    assert (found.mcnemar_p, found.accuracy.p) == (1.0, 1.0)
    assert found.auc["yes"].p is None  # six patients of each class


def test_only_what_both_judged_is_compared():
    found = compare_judgements(GOOD[:4], POOR[1:], NAMES, draws=20)
    assert (found.num_objects, found.only_one) == (3, 3)
    nothing = compare_judgements(GOOD[:1], POOR[1:], NAMES, draws=20)
    assert (nothing.num_objects, nothing.accuracy.difference, nothing.auc["yes"].difference) == (
        0,
        None,
        None,
    )


def test_another_truth_is_refused():
    with pytest.raises(ValueError, match="different truths or patients"):
        compare_judgements(GOOD, [replace(POOR[0], truth="no")], NAMES)
    with pytest.raises(ValueError, match="different truths or patients"):
        compare_judgements([row(0.9, "yes", patient="p")], [row(0.9, "yes", patient="q")], NAMES)
