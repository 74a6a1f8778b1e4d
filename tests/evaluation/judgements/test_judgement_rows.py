"""Judgements meet their truth: what is scored, and what is left out."""

from __future__ import annotations

from nndet_psma.artifacts.results import Call, Judged, Judgement
from nndet_psma.evaluation.judgements.row import LeftOut, case_rows, object_rows, scored_rows

P = {"no": 0.3, "yes": 0.7}


def judged(case_id, *numbers):
    objects = [Judgement(number, (0, 0, 0, 1, 1, 1), (0, 0, 0), P, "yes") for number in numbers]
    return Judged(case_id, "hash", objects)


def test_objects_without_a_truth_are_counted():
    """a: 1 is known, 2 has no class, 7 is not in the label, 3 was not judged (and 4, but its class is unknown)."""
    truths = {"a": {1: "yes", 2: None, 3: "no", 4: None}, "b": {}}
    rows, left_out = object_rows([judged("a", 1, 2, 7), judged("b")], truths, {"a": "p", "b": "q"})
    assert left_out == LeftOut(unknown=1, foreign=1, unjudged=1)
    assert [(r.case_id, r.patient_id, r.object_id, r.truth) for r in rows] == [
        ("a", "p", 1, "yes"),
        ("a", "p", 2, None),
        ("a", "p", 7, None),
    ]
    assert [r.object_id for r in scored_rows(rows)] == [1]
    assert rows[0].right


def test_cases():
    calls = [Call("a", "hash", P, "yes"), Call("b", "hash", P, "yes")]
    rows, left_out = case_rows(calls, {"a": "no"}, {"a": "p", "b": "q"})
    assert left_out == LeftOut(unknown=1)
    assert [(r.case_id, r.object_id, r.truth, r.right) for r in rows] == [
        ("a", None, "no", False),
        ("b", None, None, False),
    ]
