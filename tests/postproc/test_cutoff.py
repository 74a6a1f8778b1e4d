"""From probabilities to decisions."""

from __future__ import annotations

import pytest

from nndet_psma.evaluation.judgements.row import JudgedRow
from nndet_psma.postproc.cutoff import Cutoff, youden_cutoff


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
    cutoff, value = youden_cutoff(found, "yes")
    assert cutoff == Cutoff("yes", 0.6)
    assert value == pytest.approx(2 / 3)


@pytest.mark.parametrize("found", [rows(), rows((0.9, "yes")), rows((0.9, "no"), (0.1, "no"))])
def test_no_ground_for_a_cut(found):
    assert youden_cutoff(found, "yes") == (Cutoff("yes", 0.5), None)
