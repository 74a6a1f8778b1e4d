"""A number with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.statistics.resampling import Resampling
from nndet_psma.evaluation.statistics.student_interval import Scale


@dataclass(frozen=True)
class Score:
    """A number with its interval.

    Attributes:
        value: None when undefined.
        ci_low: lower end of the interval; None when undefined, without draws, or with less than two patients behind it.
        ci_high: upper end, likewise.
        undefined_draws: draws left out of the interval because the score was undefined in them.
        why: reason that there is no value.
    """

    value: float | None
    ci_low: float | None
    ci_high: float | None
    undefined_draws: int = 0
    why: str | None = None


def scored(
    value: float | None,
    rows: NDArray[np.float64],
    resampling: Resampling,
    why: str,
    *,
    patients: int | None = None,
    scale: Scale = "share",
) -> Score:
    """A number with its interval, or the reason that it has none.

    Args:
        value: None when undefined.
        rows: value in each row of ``resampling.weights``, NaN where undefined.
        resampling: draws of patients.
        why: reason that there is no value.
        patients: as in :meth:`~nndet_psma.evaluation.statistics.resampling.Resampling.interval`.
        scale: of the number.
    """
    if value is None:
        return Score(None, None, None, why=why)
    interval = resampling.interval(value, rows, scale, patients=patients)
    return Score(value, interval.low, interval.high, interval.undefined)
