"""Charts and table of the page of judgements."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from nndet_psma.evaluation.judgements.row import JudgedRow
from nndet_psma.evaluation.judgements.scores import score_judgements
from nndet_psma.report.charts.judged import (
    decision_chart,
    probability_chart,
    reliability_chart,
    roc_chart,
    roc_points,
)
from nndet_psma.report.page.content import Picture
from nndet_psma.report.page.figures import picture_of
from nndet_psma.report.sections.judged import explained_section, worst_first

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


def test_reliability_by_hand():
    """Bins of 0.1: 0.9, 0.8 and 0.6 hold a yes, a no and a no, 0.1 a yes: gaps 0.1, 0.8, 0.6, 0.9, their mean 0.6."""
    chart = reliability_chart(ROWS[:4], "yes", "node")
    assert "expected calibration error 0.600" in chart.alt
    assert "the more nodes" in chart.caption
    assert reliability_chart([], "yes", "node") is None


def test_decision_curve_by_hand():
    """Two of four are a yes. At 0.01 all act, as without a model; from 0.11 on one yes and two nos: never better."""
    assert "nowhere better" in decision_chart(ROWS[:4], "yes").alt
    good = [row(1, 0.9, "yes", "yes"), row(2, 0.2, "no", "no")]
    assert "better than acting on all or none from 0.21 to 0.60" in decision_chart(good, "yes").alt
    assert decision_chart([], "yes") is None


def _source(rows, **more):
    scores = score_judgements(rows, NAMES, draws=10)
    return SimpleNamespace(rows=rows, scores=scores, missing={}, **{"explained": {}, **more})


def test_the_worst_mistakes_in_pictures():
    picture = Picture("data:,", (10, 5), "c, object 2")
    section = explained_section(_source(ROWS, explained={("c", 2): picture}))
    gallery = section.blocks[-1]
    assert gallery.heading == "1 of 3 mistakes"
    [shown] = gallery.items
    assert (shown.title, shown.badge, shown.pictures) == ("Case c, object 2", "no, called yes", [picture])


def test_without_pictures_the_command_is_named_and_without_mistakes_there_is_nothing_to_show():
    [missing] = explained_section(_source(ROWS)).blocks
    assert missing.command == "nndet_predict TASK MODEL --explain"
    [note] = explained_section(_source(ROWS[:1])).blocks
    assert "There are none" in note.text


def test_a_picture_that_is_there_keeps_its_size(tmp_path):
    from PIL import Image

    Image.new("RGB", (12, 7)).save(tmp_path / "a.png")
    assert picture_of(tmp_path / "a.png", "alt").size == (12, 7)
