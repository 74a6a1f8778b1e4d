"""Average precision at one IoU, as COCO and nnDetection define it.

Predictions of all cases are ranked by score; after each one precision = TP / (TP + FP) and recall = TP /
lesions. Precision is replaced by the highest precision at this or any higher recall, read off at the 101
recalls 0.00, 0.01, ..., 1.00 (0 where that recall is never reached) and averaged. At most the 100 best
predictions of a case and class count. The value for several classes is the mean of the classes' values;
mAP_IoU_0.10_0.50_0.05 is further averaged over the nine IoUs.

Differences from nnDetection and COCO:

* A class without lesions has no average precision (None) and is left out of means. nnDetection counts it as
  -1, so a superfluous class makes its scores lower or negative (its issue 276).
* A recall of TP / lesions reaches the recall k / 100 when 100 TP >= k lesions, in integers. They compare
  rounded fractions, which can read one of the 101 points one prediction late: their value is lower by less
  than 0.01.
* Of equal scores the earlier case comes first, as there: with many equal scores the value depends on the
  order of cases.

picai_eval and scikit-learn sum the un-interpolated precision over the recall steps: never higher than the
interpolated precision summed over the same steps.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nndet_psma.evaluation.detection.ranking import RankedDetections, Weights

RECALL_STEPS = 100


def average_precision(ranked: RankedDetections, weights: Weights | None = None) -> float | None:
    """Average precision in [0, 1] of one class at one IoU; None without lesions, 0 without predictions.

    Args:
        ranked: predictions of one class.
        weights: ``[C]`` how often each case counts.
    """
    counts = ranked.counts(weights)
    if counts.lesions == 0:
        return None
    precision = counts.tp / np.maximum(counts.tp + counts.fp, 1)  # 0 before the first case that counts
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    wanted = np.arange(RECALL_STEPS + 1) * counts.lesions
    reached_at = np.searchsorted(RECALL_STEPS * counts.tp, wanted, side="left")
    return float(envelope[reached_at[reached_at < len(envelope)]].sum() / (RECALL_STEPS + 1))


def mean_of_defined(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are not None; None when there is none."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
