"""What a user gets at a score threshold: sensitivity, positive predictive value, F1, false positives per case.

A prediction counts when its score is **at least** the threshold. All predictions count, not only the best
hundred.

A point says on which cases its threshold was chosen: chosen on the cases that are scored it is optimistic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nndet_psma.evaluation.detection.ranking import Counts, RankedDetections, Weights
from nndet_psma.evaluation.statistics.student_interval import Scale

RATES = ("sensitivity", "ppv", "f1", "fp_per_case", "fp_per_patient")
"""Rates of an operating point, by name."""
_COUNTED = ("fp_per_case", "fp_per_patient")

NO_CASES, OTHER_CASES, SCORED_CASES = "no cases", "other cases", "the scored cases"
UNKNOWN_CASES = "unknown cases"
"""On which cases a threshold was chosen."""


@dataclass(frozen=True)
class OperatingPoint:
    """One row of the table.

    Attributes:
        threshold: lowest score that counts.
        sensitivity: TP / (TP + FN); None without lesions.
        ppv: TP / (TP + FP); None without predictions at this threshold.
        f1: 2 TP / (2 TP + FP + FN); None without lesions.
        fp_per_case: FP / cases; None without cases.
        tp: lesions found.
        fp: predictions that claim no lesion.
        fn: lesions missed.
        fp_per_patient: FP / patients; None without cases.
    """

    threshold: float
    sensitivity: float | None
    ppv: float | None
    f1: float | None
    fp_per_case: float | None
    tp: int
    fp: int
    fn: int
    fp_per_patient: float | None = None


def operating_points(
    ranked: RankedDetections,
    thresholds: Sequence[float] | None = None,
    weights: Weights | None = None,
) -> list[OperatingPoint]:
    """Rows at ``thresholds`` in the order given, or at every distinct score from high to low.

    Args:
        ranked: from :func:`~nndet_psma.evaluation.detection.ranking.rank_detections` with ``max_detections=None``.
        thresholds: score thresholds.
        weights: ``[C]`` how often each case counts.
    """
    counts = ranked.counts(weights)
    if thresholds is None:
        thresholds = ranked.scores[ranked.group_ends].tolist()
    counted = np.searchsorted(-ranked.scores, -np.asarray(thresholds, dtype=np.float64), side="right")
    tp = np.append(0, counts.tp)[counted]
    fp = np.append(0, counts.fp)[counted]
    return [
        _row(float(threshold), int(hits), int(misses), counts)
        for threshold, hits, misses in zip(thresholds, tp, fp, strict=True)
    ]


def best_f1(points: Sequence[OperatingPoint]) -> OperatingPoint | None:
    """Row of the highest F1, of equal ones that of the highest threshold; None when no row has an F1."""
    defined = [point for point in points if point.f1 is not None]
    return max(defined, key=lambda point: (point.f1, point.threshold), default=None)


def _row(threshold: float, tp: int, fp: int, counts: Counts) -> OperatingPoint:
    lesions, cases = counts.lesions, counts.cases
    return OperatingPoint(
        threshold=threshold,
        sensitivity=tp / lesions if lesions else None,
        ppv=tp / (tp + fp) if tp + fp else None,
        f1=2 * tp / (tp + fp + lesions) if lesions else None,
        fp_per_case=fp / cases if cases else None,
        tp=tp,
        fp=fp,
        fn=lesions - tp,
        fp_per_patient=fp / counts.patients if counts.patients else None,
    )


def scale_of(name: str) -> Scale:
    """On which scale the interval of a rate of :data:`RATES` is made: a share, or a rate without an upper end."""
    return "rate" if name in _COUNTED else "share"
