"""Decision curve: is acting on the model better than acting on all or on none?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = tuple(round(0.01 * step, 2) for step in range(1, 61))
"""Probabilities from which one would act, 0.01 to 0.60: beyond, nobody waits for a test."""


@dataclass(frozen=True)
class NetBenefit:
    """Net benefit at one threshold, in true positives per row (Vickers and Elkin, Med Decis Making 26:565, 2006).

    Attributes:
        threshold: probability from which one acts; a false positive weighs ``threshold / (1 - threshold)``.
        model: of acting on probabilities from the threshold on.
        treat_all: of acting on every row.
        treat_none: of acting on none, 0.
    """

    threshold: float
    model: float
    treat_all: float
    treat_none: float = 0.0


def decision_curve(
    probabilities: NDArray[np.float64],
    truth: NDArray[np.bool_],
    thresholds: tuple[float, ...] = THRESHOLDS,
) -> list[NetBenefit]:
    """Net benefit of probabilities ``[N]`` against the truth ``[N]``; no rows, no curve.

    Raises:
        ValueError: a threshold lies outside (0, 1).
    """
    if any(not 0 < threshold < 1 for threshold in thresholds):
        raise ValueError(f"thresholds must lie in (0, 1), got {thresholds}")
    if len(truth) == 0:
        return []
    return [
        NetBenefit(
            threshold,
            _benefit(probabilities >= threshold, truth, threshold),
            _benefit(np.ones(len(truth), dtype=bool), truth, threshold),
        )
        for threshold in thresholds
    ]


def _benefit(acted: NDArray[np.bool_], truth: NDArray[np.bool_], threshold: float) -> float:
    right, wrong = (acted & truth).mean(), (acted & ~truth).mean()
    return float(right - wrong * threshold / (1 - threshold))
