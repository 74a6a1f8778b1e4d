"""Case-level scores by hand."""

from __future__ import annotations

import pytest

from nndet_psma.evaluation.detection.case_scores import case_scores
from nndet_psma.evaluation.detection.record import (
    CaseRecord,
    LesionRecord,
    PredictionRecord,
    SlicePrediction,
    SliceRecord,
)

BOX3, BOX2 = (0, 0, 0, 1, 1, 1), (0, 0, 1, 1)


def _case(name, *, lesions=(), candidates=(), accepted=()):
    """``lesions``: labels; ``candidates`` and ``accepted``: (score, label)."""
    slices = tuple(SlicePrediction(0, score, label, BOX2, ()) for score, label in accepted)
    return CaseRecord(
        name,
        name,
        tuple(LesionRecord(label, BOX3) for label in lesions),
        tuple(PredictionRecord(score, label, BOX3) for score, label in candidates),
        {},
        SliceRecord(4, 0.1, slices, ()),
    )


# two diseased cases (scores 0.9, 0.4), two healthy ones (0.6 and none); accepted: the first and the third
CASES = [
    _case("a", lesions=[0, 0], candidates=[(0.9, 0), (0.2, 0)], accepted=[(0.9, 0)]),
    _case("b", lesions=[0], candidates=[(0.4, 0)]),
    _case("c", candidates=[(0.6, 0)], accepted=[(0.6, 0)]),
    _case("d"),
]


def test_by_hand():
    """Pairs: 0.9 beats both, 0.4 loses to 0.6 and beats 0: AUC 3/4. Ranking hit, miss, hit: AP 1/2 (1 + 2/3)."""
    scores = case_scores(CASES)
    assert scores["auc_case"] == pytest.approx(3 / 4)
    assert scores["ap_case"] == pytest.approx((1 + 2 / 3) / 2)
    assert scores["prec_case"] == scores["rec_case"] == scores["f1_case"] == scores["acc_case"] == 0.5


def test_class_that_counts():
    """Class 1 alone: case b is diseased, its score is that of its class-1 candidate."""
    cases = [
        _case("a", lesions=[0], candidates=[(0.9, 0), (0.3, 1)], accepted=[(0.9, 0)]),
        _case("b", lesions=[1], candidates=[(0.4, 1)], accepted=[(0.4, 1)]),
    ]
    assert case_scores(cases, 1) == {
        "auc_case": 1.0, "ap_case": 1.0, "f1_case": 1.0, "prec_case": 1.0, "rec_case": 1.0, "acc_case": 1.0,
    }  # fmt: skip


def test_equal_scores_share_a_step():
    """One diseased and one healthy case with the same score: AUC 1/2, AP the prevalence."""
    cases = [_case("a", lesions=[0], candidates=[(0.5, 0)]), _case("b", candidates=[(0.5, 0)])]
    scores = case_scores(cases)
    assert scores["auc_case"] == 0.5
    assert scores["ap_case"] == 0.5


def test_undefined_is_none():
    healthy = [_case("a"), _case("b", candidates=[(0.3, 0)], accepted=[(0.3, 0)])]
    scores = case_scores(healthy)
    assert (scores["auc_case"], scores["ap_case"], scores["rec_case"], scores["f1_case"]) == (None,) * 4
    assert (scores["prec_case"], scores["acc_case"]) == (0.0, 0.5)
    assert set(case_scores([]).values()) == {None}


def test_nothing_called():
    scores = case_scores([_case("a", lesions=[0], candidates=[(0.3, 0)])])
    assert (scores["prec_case"], scores["rec_case"], scores["f1_case"], scores["acc_case"]) == (None, 0, 0, 0)


def test_without_slice_boxes_no_case_is_called():
    from dataclasses import replace

    assert case_scores([replace(CASES[0], slices=None)])["rec_case"] == 0.0
