"""From what networks say to probabilities that are true: one temperature, and the prevalence of the positive class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.postproc.cutoff import Cutoff
from nndet_psma.postproc.fusion import Fusion

LEAST_OBJECTS = 50
"""Objects of either class below which no temperature is fitted: our choice, after the specification of the core."""

_SMALLEST = 1e-7  # a probability is never told to be 0 or 1
_RANGE = (-3.0, 3.0)  # of the logarithm of the temperature that is searched
_MOST_TEMPERATURE = 100.0  # far beyond what is searched; there every probability is the prevalence


@dataclass(frozen=True)
class CalibratedCutoff(Cutoff):
    """A cut-off on calibrated probabilities.

    Attributes:
        temperature: by which log odds are divided; 1 leaves them.
        prevalence: of the positive class, added to log odds that were learnt from balanced classes.
        fusion: of a second stage: how its probability and the detector's score become one; None where none was fitted.
    """

    temperature: float = 1.0
    prevalence: float = 0.5
    fusion: Fusion | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.temperature <= _MOST_TEMPERATURE or not 0 < self.prevalence < 1:
            raise ValueError(
                f"temperature {self.temperature} or prevalence {self.prevalence} is out of range"
            )

    def calibrated(self, logits: Sequence[float]) -> tuple[float, float]:
        """Mean and standard deviation of the probabilities that several networks give one object."""
        found = probabilities(np.asarray(logits), self.temperature, self.prevalence)
        return float(found.mean()), float(found.std())


def probabilities(logits: NDArray[np.float64], temperature: float, prevalence: float) -> NDArray[np.float64]:
    """Of the positive class, from log odds where both classes are alike frequent; same shape."""
    shift = np.log(prevalence / (1 - prevalence))
    odds = np.clip(logits / temperature + shift, -50, 50)
    found: NDArray[np.float64] = np.clip(1 / (1 + np.exp(-odds)), _SMALLEST, 1 - _SMALLEST)
    return found


def fit_temperature(
    logits: Sequence[Sequence[float]], truth: NDArray[np.bool_], prevalence: float
) -> tuple[float, str]:
    """The temperature for which the mean probabilities of the networks are most likely, and a sentence on it.

    Args:
        logits: of every object, from the networks that have not seen it.
        truth: ``[N]`` whether it is positive.
        prevalence: of the positive class.

    Returns:
        1 where a class has fewer than :data:`LEAST_OBJECTS` objects.

    Classes that the networks tell apart without a mistake would ask for a temperature of 0. So a positive object counts
    as positive with the probability (P + 1) / (P + 2) only, of P positive objects, and likewise a negative one.

    Source: Guo et al. 2017, "On calibration of modern neural networks"; the targets are those of Platt 1999,
    "Probabilistic outputs for support vector machines".
    """
    from scipy.optimize import minimize_scalar

    rarer = int(min(truth.sum(), (~truth).sum()))
    if rarer < LEAST_OBJECTS:
        return 1.0, f"not calibrated: {rarer} objects of the rarer class, {LEAST_OBJECTS} are needed"
    said = np.concatenate([np.asarray(each, dtype=np.float64) for each in logits])
    counts = np.array([len(each) for each in logits])
    starts = np.cumsum(counts) - counts
    positives, negatives = int(truth.sum()), int((~truth).sum())
    targets = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def surprise(log_temperature: float) -> float:
        means = np.add.reduceat(probabilities(said, np.exp(log_temperature), prevalence), starts) / counts
        return float(-(targets * np.log(means) + (1 - targets) * np.log(1 - means)).mean())

    temperature = float(np.exp(minimize_scalar(surprise, bounds=_RANGE, method="bounded").x))
    return temperature, f"calibrated by a temperature of {temperature:.3g} on {len(counts)} objects"
