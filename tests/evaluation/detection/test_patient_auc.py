import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_cases import row_case

from nndet_psma.evaluation.detection.patient import patient_auc, patient_table
from nndet_psma.evaluation.statistics.auc import auc, dense_ranks, rank_auc


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        ([0.1, 0.9], [0, 1], 1.0),
        ([0.9, 0.1], [0, 1], 0.0),
        ([0.5, 0.5], [0, 1], 0.5),
        # pairs of positive 0.5 and 0.2 with negative 0.5 and 0.1: tie, win, loss, win = 2.5 of 4
        ([0.5, 0.2, 0.5, 0.1], [1, 1, 0, 0], 5 / 8),
        ([0.5, 0.2], [1, 1], None),
        ([0.5, 0.2], [0, 0], None),
        ([], [], None),
    ],
)
def test_auc(scores, positive, expected):
    assert auc(scores, positive) == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), max_size=12))
def test_auc_equals_counting_pairs(rows):
    positives = [(score, times) for score, positive, times in rows if positive]
    negatives = [(score, times) for score, positive, times in rows if not positive]
    pairs = sum(a * b for _, a in positives for _, b in negatives)
    wins = sum(a * b * (1 if x > y else 0.5 if x == y else 0) for x, a in positives for y, b in negatives)
    ranks = dense_ranks([score for score, _, _ in rows])
    value = rank_auc(
        ranks, np.array([positive for _, positive, _ in rows], dtype=bool), np.array([n for *_, n in rows])
    )
    assert value == (pytest.approx(wins / pairs) if pairs else None)


def test_cases_of_a_patient_are_joined():
    records = [
        row_case("a1", [], [(0.7, 0)], patient="a"),  # the patient's best score lies in the lesion-free case
        row_case("b1", [], [(0.6, 0)], patient="b"),
        row_case("a2", [0], [(0.2, 0)], patient="a"),
        row_case("c1", [0], [], patient="c"),
    ]
    table = patient_table(records)
    assert table.scores.tolist() == [0.7, 0.6, 0.0]
    assert table.positive.tolist() == [True, False, True]
    assert patient_auc(table) == 0.5  # a above b, c below
    assert patient_auc(table, np.array([3, 1, 3, 1])) == 0.75
    assert patient_auc(table, np.array([1, 0, 1, 1])) is None


def test_no_patients():
    assert patient_auc(patient_table([])) is None
