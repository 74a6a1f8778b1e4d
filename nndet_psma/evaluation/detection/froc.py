"""Free-response ROC: sensitivity against false positives per case.

One point per distinct score: sensitivity = TP / lesions and FP / cases when every prediction with at least
that score counts, after the point (0, 0). Between points the curve is interpolated linearly and after the
last it stays level, as in nnDetection and LUNA16. The FROC score (CPM) is the mean sensitivity at 1/8, 1/4,
1/2, 1, 2, 4 and 8 FP per case. Several classes are pooled: matches lie within a class, each lesion weighs the
same.

Every case counts in "per case", also one without lesions, and one without predictions.

Differences from other scorers:

* nnDetection gives 0 without lesions and NaN when no prediction hits; here None and 0.
* picai_eval overwrites the last point of the curve, taking it for the place-holder of missed lesions; when
  every lesion is found the best point is lost. Here all points stay. Its sensitivity at a rate is that of the
  last point at or below the rate, never higher than the interpolated one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.detection.ranking import RankedDetections, Weights

FP_RATES = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class FrocCurve:
    """Points of the curve, all arrays ``[K]`` with rising false positives.

    Attributes:
        fp_per_case: starts at 0.
        sensitivity: starts at 0.
        thresholds: lowest score that counts at the point; infinity at the first.
    """

    fp_per_case: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    thresholds: NDArray[np.float64]

    def sensitivity_at(self, rates: tuple[float, ...] = FP_RATES) -> NDArray[np.float64]:
        """Sensitivity at false positives per case ``rates``; where the curve rises upright, its upper end."""
        return np.interp(rates, self.fp_per_case, self.sensitivity)


def froc_curve(ranked: RankedDetections, weights: Weights | None = None) -> FrocCurve | None:
    """The whole curve; None when there are no lesions.

    Args:
        ranked: predictions of one or of all classes.
        weights: ``[C]`` how often each case counts.
    """
    counts = ranked.counts(weights)
    if counts.lesions == 0:
        return None
    ends = ranked.group_ends
    return FrocCurve(
        np.append(0.0, counts.fp[ends] / counts.cases),
        np.append(0.0, counts.tp[ends] / counts.lesions),
        np.append(np.inf, ranked.scores[ends]),
    )


def froc_score(ranked: RankedDetections, weights: Weights | None = None) -> float | None:
    """Mean sensitivity at :data:`FP_RATES`; None when there are no lesions, 0 without predictions."""
    curve = froc_curve(ranked, weights)
    return None if curve is None else float(curve.sensitivity_at().mean())
