"""A number with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.statistics.bootstrap import interval_of


@dataclass(frozen=True)
class Score:
    """A number with its interval.

    Attributes:
        value: None when undefined.
        ci_low: lower end of the interval; None when undefined, without draws, or with fewer than two patients.
        ci_high: upper end, likewise.
        undefined_draws: draws left out of the interval because the score was undefined in them.
        why: reason that there is no value.
    """

    value: float | None
    ci_low: float | None
    ci_high: float | None
    undefined_draws: int = 0
    why: str | None = None


def scored(value: float | None, drawn: NDArray[np.float64], level: float, why: str) -> Score:
    """A value with the interval of its draws ``[D]`` (NaN where undefined), or the reason that it has none."""
    if value is None:
        return Score(None, None, None, why=why)
    interval = interval_of(drawn, level=level)
    return Score(value, interval.low, interval.high, interval.undefined)
