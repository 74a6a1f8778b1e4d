"""The paper's scores of many score thresholds at once, for the sweep.

Definitions (Xu 2023, "Model evaluation"), pooled over all cases: *sensitivity* = lesions with a hit on any slice / all
lesions; *precision* = slice boxes that hit a lesion / all slice boxes (0 without boxes); *F1* = their
harmonic mean. A box hits a lesion when it lies on a slice of it, has its label, and overlaps its slice box with IoU of
at least tau3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.box import pairwise_iou
from nndet_psma.boxes.detections import Detections

Metrics = dict[str, NDArray[np.float64]]
"""``sensitivity``, ``precision``, ``f1``, ``fp_per_case``, each ``[..., T]`` (one value per score threshold)."""


def metrics_of(
    boxes: NDArray[np.integer],
    true: NDArray[np.integer],
    found: NDArray[np.integer],
    *,
    num_lesions: int,
    num_cases: int,
) -> Metrics:
    """Scores from counts.

    Args:
        boxes: slice boxes, any shape; so the next two.
        true: slice boxes that hit a lesion.
        found: lesions that are hit.
        num_lesions: lesions.
        num_cases: cases.
    """
    sensitivity = found / max(num_lesions, 1)
    precision = true / np.maximum(boxes, 1)
    total = sensitivity + precision
    return {
        "sensitivity": sensitivity,
        "precision": precision,
        "f1": np.divide(2 * sensitivity * precision, total, out=np.zeros_like(total), where=total > 0),
        "fp_per_case": (boxes - true) / max(num_cases, 1),
    }


@dataclass(frozen=True)
class Hits:
    """Which boxes hit which lesions: row ``pairs[0, i]`` hits lesion ``pairs[1, i]``; shape ``[2, P]``."""

    pairs: NDArray[np.int64]
    num_boxes: int
    num_lesions: int

    @classmethod
    def pool(cls, cases: list[Hits]) -> Hits:
        """All cases as one, rows and lesions numbered on."""
        boxes = np.cumsum([0, *(case.num_boxes for case in cases)])
        lesions = np.cumsum([0, *(case.num_lesions for case in cases)])
        shifted = [
            case.pairs + np.array([[boxes[i]], [lesions[i]]], dtype=np.int64) for i, case in enumerate(cases)
        ]
        pairs = np.concatenate([np.zeros((2, 0), dtype=np.int64), *shifted], axis=1)
        return cls(pairs, int(boxes[-1]), int(lesions[-1]))

    @property
    def box_hits(self) -> NDArray[np.bool_]:
        """Whether each box hits any lesion, ``[N]``."""
        hit = np.zeros(self.num_boxes, dtype=bool)
        hit[self.pairs[0]] = True
        return hit


def find_hits(boxes: Detections, truth: Detections, *, num_lesions: int, hit_iou: float) -> Hits:
    """Hits in one case.

    Args:
        boxes: 2D with column ``slice``.
        truth: 2D slice boxes of the lesions with columns ``slice`` and ``lesion`` (index from 0).
        num_lesions: lesions of the case, also those without a slice box.
        hit_iou: tau3, inclusive.
    """
    if len(boxes) == 0 or len(truth) == 0:
        return Hits(np.zeros((2, 0), dtype=np.int64), len(boxes), num_lesions)
    hit = pairwise_iou(boxes.boxes, truth.boxes) >= hit_iou
    hit &= boxes.labels[:, None] == truth.labels[None, :]
    hit &= boxes.columns["slice"][:, None] == truth.columns["slice"][None, :]
    row, slice_box = np.nonzero(hit)
    pairs = np.stack([row, truth.columns["lesion"][slice_box]]).astype(np.int64)
    return Hits(pairs, len(boxes), num_lesions)


@dataclass(frozen=True)
class RankedBoxes:
    """Boxes that exist for a range of score thresholds ``lower < threshold <= upper``, and what they hit.

    A voter's box exists up to its own score (``lower`` = -inf). A consensus box changes when a voting box falls
    below the threshold, so each of its stages is a row with its own range.
    """

    upper: NDArray[np.float64]
    lower: NDArray[np.float64]
    hits: Hits

    def metrics(self, keep: NDArray[np.bool_], thresholds: NDArray[np.float64], num_cases: int) -> Metrics:
        """Scores at each threshold ``[T]`` when only the rows in ``keep`` ``[N]`` are there."""
        boxes = self._count(keep, thresholds)
        true = self._count(keep & self.hits.box_hits, thresholds)
        found = self._count_lesions(keep, thresholds)
        return metrics_of(boxes, true, found, num_lesions=self.hits.num_lesions, num_cases=num_cases)

    def _count(self, keep: NDArray[np.bool_], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
        alive = _count_at_least(self.upper[keep], thresholds)
        return alive - _count_at_least(self.lower[keep], thresholds)

    def _count_lesions(self, keep: NDArray[np.bool_], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
        row, lesion = self.hits.pairs[:, keep[self.hits.pairs[0]]]
        if len(row) == 0:
            return np.zeros(len(thresholds), dtype=np.int64)
        order = np.argsort(lesion, kind="stable")
        there = (self.lower[row[order], None] < thresholds) & (thresholds <= self.upper[row[order], None])
        first = np.unique(lesion[order], return_index=True)[1]
        counts: NDArray[np.int64] = np.logical_or.reduceat(there, first, axis=0).sum(axis=0)
        return counts


def _count_at_least(values: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    return len(values) - np.searchsorted(np.sort(values), thresholds, side="left")
