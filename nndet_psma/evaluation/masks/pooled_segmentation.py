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
from nndet_psma.evaluation.statistics.resampling import Method, Resampling


@dataclass(frozen=True)
class MeanScore:
    """One score over cases.

    Attributes:
        mean: of the cases in which it is defined; None without any.
        sd: standard deviation (n - 1), None with fewer than two.
        ci_low: lower end of the interval of the mean over patients; None where fewer than two have a value.
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
        intervals: how they were made, "studentised" or "percentile".
    """

    per_case: dict[str, MeanScore]
    pooled: dict[str, float | None]
    intervals: Method


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
    resampling = Resampling.of(patients, draws=draws, seed=seed, level=level)
    total = sum((each.counts for each in scores), VoxelCounts(0, 0, 0))
    return PooledSegmentation(
        {
            name: _mean_score([getattr(each, name) for each in scores], resampling, name)
            for name in (*OVERLAPS, *DISTANCES)
        },
        {name: getattr(total, name) for name in OVERLAPS},
        resampling.method,
    )


def _mean_score(values: Sequence[float | None], resampling: Resampling, name: str) -> MeanScore:
    numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    known = ~np.isnan(numbers)
    count = int(known.sum())
    if count == 0:
        return MeanScore(None, None, None, None, 0, len(values))
    weights = resampling.weights[:, known]
    times, sums = weights.sum(axis=1), weights @ numbers[known]
    drawn = np.divide(sums, times, out=np.full(len(times), np.nan), where=times > 0)
    mean = float(numbers[known].mean())
    interval = resampling.interval(mean, drawn, "share" if name in OVERLAPS else "length")
    sd = float(numbers[known].std(ddof=1)) if count > 1 else None
    return MeanScore(mean, sd, interval.low, interval.high, count, len(values) - count)
