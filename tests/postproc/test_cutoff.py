"""From probabilities to decisions."""

from __future__ import annotations

import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.evaluation.judgements.row import JudgedRow
from nndet_psma.postproc.cutoff import CutCriterion, Cutoff, tuned_cutoff


def test_called_from_the_threshold_on():
    cutoff = Cutoff("yes", 0.3)
    assert cutoff({"no": 0.7, "yes": 0.3}) == "yes"
    assert cutoff({"no": 0.71, "yes": 0.29}) == "no"


def test_below_it_the_most_probable_other_class():
    assert Cutoff("c", 0.6)({"a": 0.1, "b": 0.35, "c": 0.55}) == "b"


@pytest.mark.parametrize("threshold", [-0.1, 1.1])
def test_no_probability(threshold):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        Cutoff("yes", threshold)


@pytest.mark.parametrize("probabilities", [{"yes": 1.0}, {"a": 0.5, "b": 0.5}])
def test_classes_that_lack(probabilities):
    with pytest.raises(ValueError, match="another class are needed"):
        Cutoff("yes")(probabilities)


def rows(*pairs):
    return [JudgedRow("c", "c", i, t, "no", {"no": 1 - p, "yes": p}) for i, (p, t) in enumerate(pairs)]


def test_youden_by_hand():
    """From 0.6 on: sensitivity 2/3, specificity 2/2; 0.3 gives 3/3 and 1/2, which is less. None is not seen."""
    found = rows((0.9, "yes"), (0.6, "yes"), (0.5, "no"), (0.3, "yes"), (0.1, "no"), (0.95, None))
    cutoff, value = tuned_cutoff(found, "yes")
    assert cutoff == Cutoff("yes", 0.6)
    assert value == pytest.approx(2 / 3)


@pytest.mark.parametrize("found", [rows(), rows((0.9, "yes")), rows((0.9, "no"), (0.1, "no"))])
def test_no_ground_for_a_cut(found):
    assert tuned_cutoff(found, "yes") == (Cutoff("yes", 0.5), None)


SCORED = [
    (0.9, "yes"),
    (0.8, "yes"),
    (0.7, "no"),
    (0.6, "yes"),
    (0.5, "no"),
    (0.4, "yes"),
    (0.2, "no"),
    (0.1, "no"),
]


@pytest.mark.parametrize(
    ("criterion", "threshold", "value"),
    [
        ("youden", 0.8, 0.5),  # 2 of 4 found, no false alarm; 3 of 4 with one is worth as much, but lower
        ("sensitivity@0.75", 0.6, 0.75),  # 3 of 4 found; 3 of 4 others pass
        ("sensitivity@0.76", 0.4, 0.5),
        ("specificity@0.75", 0.6, 0.75),
        ("specificity@0.99", 0.8, 0.5),
        ("net_benefit@0.2", 0.4, (4 - 2 * 0.25) / 8),
        ("net_benefit@0.75", 0.8, 2 / 8),
    ],
)
def test_criteria(criterion, threshold, value):
    rows = [
        JudgedRow("c", "p", k, truth, "no", {"no": 1 - p, "yes": p}) for k, (p, truth) in enumerate(SCORED)
    ]
    cutoff, found = tuned_cutoff(rows, "yes", CutCriterion.parse(criterion))
    assert (cutoff.threshold, found) == (threshold, pytest.approx(value))


def test_a_limit_that_nobody_keeps_calls_nothing():
    rows = [JudgedRow("c", "p", k, t, "no", {"no": 0.5, "yes": 0.5}) for k, t in enumerate(["yes", "no"])]
    assert tuned_cutoff(rows, "yes", CutCriterion.parse("specificity@0.9")) == (Cutoff("yes", 1.0), 0.0)


@pytest.mark.parametrize("name", ["froc", "sensitivity", "sensitivity@1.5", "net_benefit@x", "youden@0.5"])
def test_unknown_criteria_are_refused(name):
    with pytest.raises(UserError, match="cannot be tuned for"):
        CutCriterion.parse(name)
