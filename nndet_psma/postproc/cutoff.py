"""From probabilities to a decision: one class is called from a probability on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nndet_psma.evaluation.judgements.row import JudgedRow, scored_rows
from nndet_psma.evaluation.statistics.reader_study import decision_threshold


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


def youden_cutoff(rows: Sequence[JudgedRow], positive: str) -> tuple[Cutoff, float | None]:
    """The cut-off for which sensitivity + specificity - 1 is highest, of equal ones the highest, and that value.

    Args:
        rows: out-of-fold judgements; those without a truth are not looked at.
        positive: class to call.

    Returns:
        0.5 and None where the truth is all alike.
    """
    known = scored_rows(rows)
    scores = np.array([row.probabilities[positive] for row in known], dtype=np.float64)
    truth = np.array([row.truth == positive for row in known], dtype=bool)
    if truth.all() or not truth.any():
        return Cutoff(positive), None
    threshold = decision_threshold(scores, truth) or 0.0
    called = scores >= threshold
    return Cutoff(positive, threshold), float(called[truth].mean() - called[~truth].mean())
