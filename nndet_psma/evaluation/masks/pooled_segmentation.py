"""Segmentation scores of many cases: mean and spread over cases, interval over patients, all voxels together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nndet_psma.evaluation.masks.segmentation_scores import (
    DISTANCES,
    OVERLAPS,
    SegmentationScores,
    VoxelCounts,
)
from nndet_psma.evaluation.statistics.bootstrap import interval_of, patient_weights


@dataclass(frozen=True)
class MeanScore:
    """One score over cases.

    Attributes:
        mean: of the cases in which it is defined; None without any.
        sd: standard deviation (n - 1), None with fewer than two.
        ci_low: lower end of the patient-bootstrap interval of the mean; None with fewer than two patients.
        ci_high: upper end.
        cases: in which it is defined.
        undefined: cases in which it is not (an empty mask).
    """

    mean: float | None
    sd: float | None
    ci_low: float | None
    ci_high: float | None
    cases: int
    undefined: int


@dataclass(frozen=True)
class PooledSegmentation:
    """Scores of a group of cases.

    Attributes:
        per_case: by score name, each case counting once, as the paper averages.
        pooled: dice, ppv, tpr and volumetric similarity of all voxels together: large masks count more.
    """

    per_case: dict[str, MeanScore]
    pooled: dict[str, float | None]


def pool_segmentation(
    scores: Sequence[SegmentationScores],
    patients: Sequence[str],
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> PooledSegmentation:
    """Combine the scores of cases.

    Args:
        scores: ``[C]`` one per case.
        patients: ``[C]`` patient of each case; intervals resample patients.
        draws: of the bootstrap.
        seed: the same seed gives the same intervals.
        level: of the intervals.

    Raises:
        ValueError: the lengths differ.
    """
    if len(scores) != len(patients):
        raise ValueError(f"{len(scores)} scores of {len(patients)} patients")
    weights = patient_weights(patients, draws=draws, seed=seed).astype(np.float64)
    total = sum((each.counts for each in scores), VoxelCounts(0, 0, 0))
    return PooledSegmentation(
        {
            name: _mean_score([getattr(each, name) for each in scores], weights, level)
            for name in (*OVERLAPS, *DISTANCES)
        },
        {name: getattr(total, name) for name in OVERLAPS},
    )


def _mean_score(values: Sequence[float | None], weights: np.ndarray, level: float) -> MeanScore:
    numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    known = ~np.isnan(numbers)
    count = int(known.sum())
    if count == 0:
        return MeanScore(None, None, None, None, 0, len(values))
    times = weights[:, known].sum(axis=1)
    sums = weights[:, known] @ numbers[known]
    drawn = np.divide(sums, times, out=np.full(len(times), np.nan), where=times > 0)
    interval = interval_of(drawn, level=level)
    mean = float(numbers[known].mean())
    sd = float(numbers[known].std(ddof=1)) if count > 1 else None
    return MeanScore(mean, sd, interval.low, interval.high, count, len(values) - count)
