"""What is scored: one row per judged object, or per case where a case gets one verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nndet_psma.artifacts.results import Call, Judged

Truths = Mapping[str, Mapping[int, str | None]]
"""Class name by case and object; None where it is not known."""


@dataclass(frozen=True)
class JudgedRow:
    """One verdict with its truth.

    Attributes:
        case_id: name of the case.
        patient_id: patient it belongs to.
        object_id: number of the object; None where the case as a whole is judged.
        truth: class name; None where it is not known.
        decision: class name.
        probabilities: by class name.
    """

    case_id: str
    patient_id: str
    object_id: int | None
    truth: str | None
    decision: str
    probabilities: dict[str, float]

    @property
    def right(self) -> bool:
        """Whether the decision is the truth."""
        return self.decision == self.truth


@dataclass(frozen=True)
class LeftOut:
    """What is not scored.

    Attributes:
        unknown: judged objects (or cases) whose class is not known.
        foreign: judged objects that are not among those of the truth.
        unjudged: objects of known class that were not judged.
    """

    unknown: int = 0
    foreign: int = 0
    unjudged: int = 0

    def told(self) -> list[str]:
        """One text for each reason that occurs."""
        reasons = (
            (self.unknown, "judged, but of unknown class"),
            (self.foreign, "judged, but not in the label"),
            (self.unjudged, "in the label, but not judged"),
        )
        return [f"{amount} {reason}" for amount, reason in reasons if amount]


def object_rows(
    results: Iterable[Judged], truths: Truths, patients: Mapping[str, str]
) -> tuple[list[JudgedRow], LeftOut]:
    """Every judged object, those without a truth included, and what cannot be scored.

    Args:
        results: one per case.
        truths: of every case.
        patients: patient by case id.
    """
    rows: list[JudgedRow] = []
    unknown = foreign = unjudged = 0
    for result in results:
        truth = truths[result.case_id]
        for each in result.objects:
            known = truth.get(each.object_id)
            foreign += each.object_id not in truth
            unknown += each.object_id in truth and known is None
            rows.append(
                JudgedRow(
                    result.case_id,
                    patients[result.case_id],
                    each.object_id,
                    known,
                    each.decision,
                    each.probabilities,
                )
            )
        missed = set(truth) - {each.object_id for each in result.objects}
        unjudged += sum(truth[number] is not None for number in missed)
    return rows, LeftOut(unknown, foreign, unjudged)


def case_rows(
    results: Iterable[Call], truths: Mapping[str, str], patients: Mapping[str, str]
) -> tuple[list[JudgedRow], LeftOut]:
    """Every case with its verdict.

    Args:
        results: one per case.
        truths: class name by case id; a case whose class is not known is not there.
        patients: patient by case id.
    """
    rows = [
        JudgedRow(
            result.case_id,
            patients[result.case_id],
            None,
            truths.get(result.case_id),
            result.decision,
            result.probabilities,
        )
        for result in results
    ]
    return rows, LeftOut(unknown=sum(row.truth is None for row in rows))


def scored_rows(rows: Sequence[JudgedRow]) -> list[JudgedRow]:
    """Rows whose truth is known."""
    return [row for row in rows if row.truth is not None]
