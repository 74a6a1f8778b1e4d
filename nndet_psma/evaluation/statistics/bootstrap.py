"""Confidence intervals by resampling patients.

Patients are drawn with replacement, as many as there are; a patient brings all of its cases, and one drawn
twice brings them twice. The interval lies between percentiles of the statistic over the draws. Lesions,
slices and cases of one patient resemble each other, so resampling those instead would give intervals that are
too narrow.

``scipy.stats.bootstrap`` is not used: it refuses a single observation, and one draw in which the statistic is
undefined (no lesion drawn) makes its interval NaN. Here such draws are left out and counted. The ends are plain
percentiles, which are too close together with few patients: there
:mod:`nndet_psma.evaluation.statistics.resampling` makes studentised intervals from the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.detection.ranking import Weights
from nndet_psma.evaluation.detection.record import CaseRecord


@dataclass(frozen=True)
class Interval:
    """Percentile interval.

    Attributes:
        low: lower end; None when no draw gave a value.
        high: upper end, likewise.
        draws: draws made.
        undefined: draws left out because the statistic was undefined.
    """

    low: float | None
    high: float | None
    draws: int
    undefined: int


def patient_weights(patients: Sequence[str], *, draws: int, seed: int) -> Weights:
    """How often each case counts in each draw.

    Args:
        patients: ``[C]`` patient of each case.
        draws: number of draws.
        seed: the same seed gives the same draws.

    Returns:
        ``[draws, C]``, or ``[0, C]`` with fewer than two patients: one patient says nothing about the spread.
    """
    names, patient_of_case = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if len(names) < 2:
        return np.zeros((0, len(patients)), dtype=np.int64)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return drawn[:, patient_of_case.reshape(-1)]


def percentile_interval(values: Sequence[float | None], *, level: float = 0.95) -> Interval:
    """Interval that holds the middle ``level`` of the values of the draws.

    Raises:
        ValueError: ``level`` lies outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    defined = [value for value in values if value is not None]
    if not defined:
        return Interval(None, None, len(values), len(values))
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), len(values), len(values) - len(defined))


def interval_of(values: NDArray[np.float64], *, level: float = 0.95) -> Interval:
    """:func:`percentile_interval` of the values ``[D]`` of draws, NaN where undefined."""
    defined = values[~np.isnan(values)]
    interval = percentile_interval(defined.tolist(), level=level)
    return replace(interval, draws=len(values), undefined=len(values) - len(defined))


def bootstrap(
    records: Sequence[CaseRecord],
    statistic: Callable[[Sequence[CaseRecord]], float | None],
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval of any statistic of records; None marks a draw in which it is undefined.

    The second copy of a drawn patient is a patient of its own (``patient#2``, ``case#2``).
    Slow and general; :func:`~nndet_psma.evaluation.detection.scores.score_records` weights its tables instead.
    """
    patients = [record.patient_id for record in records]
    values = [
        statistic(drawn_records(records, weights))
        for weights in patient_weights(patients, draws=draws, seed=seed)
    ]
    return percentile_interval(values, level=level)


def drawn_records(records: Sequence[CaseRecord], weights: Weights) -> list[CaseRecord]:
    """Every record as often as ``weights`` ``[C]`` says; further copies are cases and patients of their own."""
    return [
        record if copy == 1 else _renamed(record, f"#{copy}")
        for record, times in zip(records, weights, strict=True)
        for copy in range(1, int(times) + 1)
    ]


def _renamed(record: CaseRecord, suffix: str) -> CaseRecord:
    return replace(record, case_id=record.case_id + suffix, patient_id=record.patient_id + suffix)
