"""Results: their decisions, their words, and tables that go by their type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
from artifact_samples import PREDICTION

from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.artifacts.results import Call, Judged, Judgement, Result, for_type
from nndet_psma.core.errors import UserError
from nndet_psma.stages.evaluate import EVALUATORS
from nndet_psma.stages.report import PAGES

P = {"no": 0.3, "yes": 0.7}
OBJECT = Judgement(2, (0, 0, 0, 1, 2, 3), (1.0, 2.0, 3.0), P, "yes")


@dataclass(frozen=True)
class Explained(Judged):
    schema: ClassVar[str] = "test.explained"
    suffix: ClassVar[str] = "_explained.json"

    reason: str = ""


class Unheard(Result):
    suffix: ClassVar[str] = "_unheard.json"


@pytest.mark.parametrize("result", [Judged("a", "hash", [OBJECT]), Call("a", "hash", P, "yes")])
def test_decided_again(result, tmp_path):
    again = result.decided_by(lambda probabilities: min(probabilities, key=probabilities.__getitem__))
    decisions = [each.decision for each in again.objects] if isinstance(again, Judged) else [again.decision]
    assert decisions == ["no"]
    assert (again.made_from, type(again)) == (result.made_from, type(result))
    file = again.file(tmp_path, "a")
    again.write(file)
    assert type(result).read(file) == again


def test_a_subclass_keeps_its_fields():
    assert Explained("a", "hash", [OBJECT], "bright").decided_by(lambda p: "no").reason == "bright"


@pytest.mark.parametrize("table", [EVALUATORS, PAGES])
def test_tables_go_by_the_nearest_type(table):
    assert for_type(table, type(PREDICTION), "scored") is table[Prediction]
    assert for_type(table, Explained, "scored") is table[Judged]
    with pytest.raises(
        UserError, match="of the type Unheard cannot be scored; expected one derived from Pred"
    ):
        for_type(table, Unheard, "scored")


@pytest.mark.parametrize(
    ("probabilities", "decision", "message"),
    [
        (P, "maybe", "decision 'maybe' is none of no, yes"),
        ({"no": 0.3, "yes": 0.6}, "no", "must sum to 1"),
        ({"no": -0.5, "yes": 1.5}, "no", r"must lie in \[0, 1\]"),
    ],
)
def test_no_probabilities(probabilities, decision, message):
    with pytest.raises(ValueError, match=message):
        Call("a", "hash", probabilities, decision)
