"""Which prediction finds which lesion: the one matching rule that every lesion-wise score uses.

Predictions choose in the order of their scores, best first, equal scores in the order given. Each claims,
among the lesions of its own class that nobody has claimed yet and whose IoU with it is **at least** (``>=``)
the threshold, the one with the highest IoU, equal IoUs the lowest index. A lesion is claimed once: a second
prediction on it claims another lesion that it overlaps enough, or nothing, and is then a false positive. One
prediction that covers two lesions finds one of them; the other stays missed.

Choosing by score makes one matching valid at every score threshold: dropping low predictions changes nothing
above.

Differences from other scorers:

* nnDetection and COCO: the same rule, but of equal IoUs they take the last lesion (no effect on any count
  unless a third box competes).
* picai_eval: maximises the number of matches, then their overlap, and forgives superfluous predictions on a
  lesion that is found. It never finds fewer lesions and never counts more false positives, but a box of low
  score can take the lesion from a box of high score (its issue 24), which lowers the sensitivity at a score
  threshold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.boxes import Boxes, pairwise_iou


def match_greedy(
    pred_boxes: Boxes,
    pred_scores: NDArray[np.float64],
    pred_labels: NDArray[np.int64],
    truth_boxes: Boxes,
    truth_labels: NDArray[np.int64],
    *,
    iou: float,
) -> NDArray[np.int64]:
    """Lesion claimed by each prediction, -1 for a false positive.

    Args:
        pred_boxes: ``[P, 2 * dim]``, 2D or 3D, voxel edges (see :mod:`nndet_psma.core.boxes`).
        pred_scores: ``[P]``.
        pred_labels: ``[P]`` class indices.
        truth_boxes: ``[L, 2 * dim]``.
        truth_labels: ``[L]`` class indices.
        iou: smallest intersection over union of a match, in (0, 1].

    Returns:
        ``[P]`` index of the claimed row of ``truth_boxes``, in the order of ``pred_boxes``.

    Raises:
        ValueError: ``iou`` lies outside (0, 1].
    """
    return claim_greedy(
        class_overlaps(pred_boxes, pred_labels, truth_boxes, truth_labels), pred_scores, iou=iou
    )


def class_overlaps(
    pred_boxes: Boxes,
    pred_labels: NDArray[np.int64],
    truth_boxes: Boxes,
    truth_labels: NDArray[np.int64],
) -> NDArray[np.float64]:
    """IoU of every prediction with every lesion ``[P, L]``; 0 between different classes."""
    return pairwise_iou(pred_boxes, truth_boxes) * (pred_labels[:, None] == truth_labels[None, :])


def claim_greedy(
    overlaps: NDArray[np.float64], scores: NDArray[np.float64], *, iou: float
) -> NDArray[np.int64]:
    """:func:`match_greedy` on overlaps measured already.

    Args:
        overlaps: ``[P, L]``, any measure in [0, 1], 0 where a match is forbidden.
        scores: ``[P]``.
        iou: smallest overlap of a match, in (0, 1].

    Returns:
        ``[P]`` index of the claimed column, or -1.

    Raises:
        ValueError: ``iou`` lies outside (0, 1].
    """
    if not 0 < iou <= 1:
        raise ValueError(f"the IoU threshold must lie in (0, 1], got {iou}")
    claimed = np.full(len(scores), -1, dtype=np.int64)
    if overlaps.size == 0:
        return claimed
    left = np.where(overlaps >= iou, overlaps, 0.0)
    order = np.argsort(-scores, kind="stable")
    for prediction in order[left[order].any(axis=1)]:
        lesion = int(left[prediction].argmax())  # the first of equal values
        if left[prediction, lesion] > 0:
            claimed[prediction] = lesion
            left[:, lesion] = 0.0
    return claimed
