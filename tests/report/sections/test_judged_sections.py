"""Charts and table of the page of judgements."""

from __future__ import annotations

import numpy as np
import pytest

from nndet_psma.evaluation.judgements.row import JudgedRow
from nndet_psma.evaluation.judgements.scores import score_judgements
from nndet_psma.report.charts.judged import probability_chart, roc_chart, roc_points
from nndet_psma.report.sections.judged import worst_first

NAMES = ["no", "yes"]


def row(number, probability, truth, decision):
    return JudgedRow("c", f"p{number}", number, truth, decision, {"no": 1 - probability, "yes": probability})


ROWS = [
    row(1, 0.9, "yes", "yes"),
    row(2, 0.8, "no", "yes"),
    row(3, 0.6, "no", "yes"),
    row(4, 0.1, "yes", "no"),
    row(5, 0.7, None, "yes"),
]


def test_roc_points_by_hand():
    """0.9 yes; 0.5 once yes and once no, one step; 0.1 no."""
    found = roc_points(np.array([0.1, 0.5, 0.9, 0.5]), np.array([False, True, True, False]))
    assert found is not None
    assert found[0].tolist() == [0, 0, 0.5, 1]
    assert found[1].tolist() == [0, 0.5, 1, 1]
    assert roc_points(np.array([0.5]), np.array([True])) is None


def test_mistakes_come_first_the_most_certain_on_top():
    """4: the truth has 0.1; 2: 0.2; 3: 0.4; then what is right, then what is not known."""
    assert [each.object_id for each in worst_first(ROWS)] == [4, 2, 3, 1, 5]


def test_charts():
    scores = score_judgements(ROWS, NAMES, draws=10)
    chart = roc_chart(ROWS[:4], scores)
    assert chart is not None
    assert "yes: AUC 0.50, decided at sensitivity 0.50 and specificity 0.00" in chart.alt
    chart = probability_chart(ROWS[:4], "yes", 0.6, "object")
    assert chart is not None
    assert "yes: median 0.50; not yes: median 0.70" in chart.alt
    assert probability_chart([], "yes", None, "object") is None


@pytest.mark.parametrize("rows", [[ROWS[0]], []])
def test_no_curve_of_one_kind(rows):
    assert roc_chart(rows, score_judgements(rows, NAMES, draws=10)) is None
