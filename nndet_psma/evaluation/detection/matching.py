"""Which prediction finds which lesion: the one matching rule that every lesion-wise score uses.

Predictions choose in the order of their scores, best first, equal scores in the order given. Each claims,
among the lesions of its own class that nobody has claimed yet and that it hits, the closest one, equally close ones
the lowest index. A lesion is claimed once: a second prediction on it claims another lesion that it hits, or nothing,
and is then a false positive. One prediction that covers two lesions finds one of them; the other stays missed.

Choosing by score makes one matching valid at every score threshold: dropping low predictions changes nothing
above.

What a hit is, and what close means, is a :class:`HitRule`:

============ ===================================================================== ======================
criterion    a hit                                                                 closest
============ ===================================================================== ======================
``iou``      intersection / union is **at least** (``>=``) the threshold           highest value
``overlap``  intersection / the smaller of the two boxes is at least the threshold highest value
``distance`` centres lie **at most** (``<=``) so many mm apart                     shortest distance
``centre``   centre of the prediction lies in the lesion's box (half-open)         shortest distance
============ ===================================================================== ======================

Lesions may be marked *ignored*: they are claimed only by predictions that hit no free lesion that counts, and whoever
claims one is neither right nor wrong. An ignored lesion that is a *crowd* (a region of many) can be claimed any
number of times.

Differences from other scorers:

* nnDetection and COCO: the same rule, but of equal IoUs they take the last lesion (no effect on any count
  unless a third box competes).
* picai_eval: maximises the number of matches, then their overlap, and forgives superfluous predictions on a
  lesion that is found. It never finds fewer lesions and never counts more false positives, but a box of low
  score can take the lesion from a box of high score (its issue 24), which lowers the sensitivity at a score
  threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.box import Boxes, box_centres, box_volumes, pairwise_intersection, pairwise_iou

Criterion = Literal["iou", "overlap", "distance", "centre"]


@dataclass(frozen=True)
class HitRule:
    """When a prediction hits a lesion.

    Attributes:
        criterion: see the table of this module.
        threshold: smallest IoU or overlap in (0, 1], largest distance in mm, 0 for ``centre``.

    Raises:
        ValueError: the threshold lies outside its range.
    """

    criterion: Criterion
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.criterion in ("iou", "overlap"):
            _check_fraction(self.threshold)
        elif self.criterion == "distance" and not 0 < self.threshold < np.inf:
            raise ValueError(f"the distance of a hit must be a positive number of mm, got {self.threshold}")

    @property
    def key(self) -> str:
        """Name in file formats: ``0.10`` (IoU), ``overlap_0.10``, ``distance_5mm``, ``centre``."""
        if self.criterion == "iou":
            return f"{self.threshold:.2f}"
        if self.criterion == "overlap":
            return f"overlap_{self.threshold:.2f}"
        return f"distance_{self.threshold:g}mm" if self.criterion == "distance" else "centre"


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
        pred_boxes: ``[P, 2 * dim]``, 2D or 3D, voxel edges (see :mod:`nndet_psma.boxes.box`).
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
    same = pred_labels[:, None] == truth_labels[None, :]
    overlaps: NDArray[np.float64] = pairwise_iou(pred_boxes, truth_boxes) * same
    return overlaps


def closeness(
    rule: HitRule, pred_boxes: Boxes, truth_boxes: Boxes, spacing: Sequence[float] | None = None
) -> NDArray[np.float64]:
    """How close every prediction is to every lesion ``[P, L]``: higher is closer, minus infinity where it is no hit.

    Args:
        rule: what a hit is.
        pred_boxes: ``[P, 2 * dim]`` voxel edges.
        truth_boxes: ``[L, 2 * dim]``.
        spacing: mm along the axes of the boxes; needed for ``distance``, and without it ``centre`` counts voxels.

    Raises:
        ValueError: ``distance`` without spacing.
    """
    if rule.criterion in ("iou", "overlap"):
        measure = pairwise_iou if rule.criterion == "iou" else _overlap_of_smaller
        values = measure(pred_boxes, truth_boxes)
        return np.where(values >= rule.threshold, values, -np.inf)
    if rule.criterion == "distance" and spacing is None:
        raise ValueError("a hit within a distance needs the voxel spacing")
    scale = np.ones(pred_boxes.shape[1] // 2) if spacing is None else np.asarray(spacing, dtype=np.float64)
    centres = box_centres(pred_boxes)
    steps = (centres[:, None] - box_centres(truth_boxes)[None]) * scale
    distances = np.sqrt((steps**2).sum(axis=2))
    if rule.criterion == "distance":
        hit = distances <= rule.threshold
    else:
        lower, upper = np.split(truth_boxes[None], 2, axis=2)
        hit = ((centres[:, None] >= lower) & (centres[:, None] < upper)).all(axis=2)
    return np.where(hit, -distances, -np.inf)


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
    _check_fraction(iou)
    claimed: NDArray[np.int64] = claim_at_each(overlaps, scores, [iou])[0]
    return claimed


def claim_at_each(
    closeness: NDArray[np.float64],
    scores: NDArray[np.float64],
    thresholds: Sequence[float],
    *,
    ignored: NDArray[np.bool_] | None = None,
    crowd: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """The matching rule itself, at several thresholds at once.

    Args:
        closeness: ``[P, L]``, higher is closer; a hit is a value that is finite and at least the threshold.
        scores: ``[P]``.
        thresholds: ``[T]``.
        ignored: ``[L]`` lesions that count neither way; none by default.
        crowd: ``[L]`` ignored lesions that can be claimed many times; none by default.

    Returns:
        ``[T, P]`` index of the claimed column, or -1.
    """
    claims = np.full((len(thresholds), len(scores)), -1, dtype=np.int64)
    if closeness.size == 0 or len(thresholds) == 0:
        return claims
    rows, columns = np.nonzero((closeness >= min(thresholds)) & np.isfinite(closeness))
    if len(rows) == 0:
        return claims
    values = closeness[rows, columns]
    last = np.zeros(len(rows), dtype=bool) if ignored is None else ignored[columns]
    order = np.lexsort((columns, -values, last, _places(scores)[rows]))
    pairs = list(
        zip(rows[order].tolist(), columns[order].tolist(), values[order].tolist(), strict=True)
    )  # plain numbers: a case has few pairs, and this loop is run over all of them once for each threshold
    endless = set() if crowd is None else set(np.flatnonzero(crowd).tolist())
    for row, threshold in zip(claims, thresholds, strict=True):
        chosen, taken = {}, set()
        for prediction, lesion, value in pairs:
            if value >= threshold and prediction not in chosen and lesion not in taken:
                chosen[prediction] = lesion
                if lesion not in endless:
                    taken.add(lesion)
        row[list(chosen)] = list(chosen.values())
    return claims


def _places(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Place of each prediction in the order of the scores, from 0."""
    places = np.empty(len(scores), dtype=np.int64)
    places[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return places


def _overlap_of_smaller(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    overlap = pairwise_intersection(first, second)
    smaller = np.minimum(box_volumes(first)[:, None], box_volumes(second)[None])
    return np.divide(overlap, smaller, out=np.zeros_like(overlap), where=smaller > 0)


def _check_fraction(threshold: float) -> None:
    if not 0 < threshold <= 1:
        raise ValueError(f"the IoU threshold must lie in (0, 1], got {threshold}")
