"""From probabilities to a decision: one class is called from a probability on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nndet_psma.core.errors import UserError
from nndet_psma.evaluation.judgements.row import JudgedRow, scored_rows


@dataclass(frozen=True)
class Cutoff:
    """The tuned decision of systems that judge; its fields are the keys of an inference plan's settings.

    Attributes:
        positive: class that is called where its probability is high enough.
        threshold: lowest probability, in [0, 1], from which on it is called. Below it the most probable of the other
            classes is.

    Raises:
        ValueError: the threshold is no probability.
    """

    positive: str
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie in [0, 1], found {self.threshold}")

    def __call__(self, probabilities: Mapping[str, float]) -> str:
        """The class that is called.

        Args:
            probabilities: by class name; at least the positive class and another one.

        Raises:
            ValueError: the positive class is not among them, or is the only one.
        """
        others = [name for name in probabilities if name != self.positive]
        if self.positive not in probabilities or not others:
            raise ValueError(
                f"'{self.positive}' and another class are needed, found {', '.join(probabilities)}"
            )
        if probabilities[self.positive] >= self.threshold:
            return self.positive
        return max(others, key=lambda name: probabilities[name])


@dataclass(frozen=True)
class CutCriterion:
    """What a cut-off is tuned for.

    Attributes:
        name: as it was asked for.
        kind: "youden": sensitivity + specificity - 1; "sensitivity": the specificity where the sensitivity is at least
            ``limit``; "specificity": the reverse; "net_benefit": TP/n - FP/n * p / (1 - p), p = ``limit``.
        limit: in (0, 1); 0 for "youden".
    """

    name: str
    kind: str
    limit: float = 0.0

    @classmethod
    def parse(cls, name: str) -> CutCriterion:
        """From ``sweep.criterion``; "auto" is "youden".

        Raises:
            UserError: names the known ones.
        """
        kind, _, limit = ("youden" if name == "auto" else name).partition("@")
        if kind == "youden" and not limit:
            return cls(kind, kind)
        try:
            value = float(limit)
        except ValueError:
            value = 0.0
        if kind not in ("sensitivity", "specificity", "net_benefit") or not 0 < value < 1:
            raise UserError(
                f"decisions cannot be tuned for {name}",
                expected="sweep.criterion=auto, youden, sensitivity@0.90, specificity@0.95 or net_benefit@0.2",
            )
        return cls(name, kind, value)

    def value(self, tp: int, fp: int, positives: int, negatives: int) -> float:
        """Of a cut-off that calls ``tp`` of the positives and ``fp`` of the negatives; -1 where the limit is missed."""
        sensitivity, specificity = tp / positives, 1 - fp / negatives
        if self.kind == "sensitivity":
            return specificity if sensitivity >= self.limit else -1.0
        if self.kind == "specificity":
            return sensitivity if specificity >= self.limit else -1.0
        if self.kind == "net_benefit":
            return (tp - fp * self.limit / (1 - self.limit)) / (positives + negatives)
        return (tp * negatives - fp * positives) / (
            positives * negatives
        )  # in integers, so that equals are equal


YOUDEN = CutCriterion("youden", "youden")


def tuned_cutoff(
    rows: Sequence[JudgedRow], positive: str, criterion: CutCriterion = YOUDEN
) -> tuple[Cutoff, float | None]:
    """The cut-off for which the criterion is highest, of equal ones the highest, and that value.

    Args:
        rows: out-of-fold judgements; those without a truth are not looked at.
        positive: class to call.
        criterion: what is maximised.

    Returns:
        0.5 and None where the truth is all alike; 1 and 0 where no cut-off keeps the limit of the criterion.
    """
    known = scored_rows(rows)
    scores = np.array([row.probabilities[positive] for row in known], dtype=np.float64)
    truth = np.array([row.truth == positive for row in known], dtype=bool)
    if truth.all() or not truth.any():
        return Cutoff(positive), None
    positives, negatives = int(truth.sum()), int((~truth).sum())
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # last of every run of equal scores
    tp = np.cumsum(truth[order])[ends]
    cuts, fp = scores[order][ends].tolist(), ends + 1 - tp
    values = [criterion.value(int(t), int(f), positives, negatives) for t, f in zip(tp, fp, strict=True)]
    best = int(np.argmax(values))
    return (
        (Cutoff(positive, 1.0), 0.0) if values[best] == -1.0 else (Cutoff(positive, cuts[best]), values[best])
    )
