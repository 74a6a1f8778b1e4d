"""From probabilities to a decision: one class is called from a probability on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
