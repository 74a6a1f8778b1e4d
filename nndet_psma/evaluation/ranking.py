"""Detections of many cases ranked by score: the table behind average precision, FROC and operating points.

Weights say how often each case counts: a bootstrap draw is a vector of multiplicities, and a case drawn twice
brings its predictions and its lesions twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.record import CaseRecord

Weights = NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """True and false positives when the threshold is lowered from one prediction to the next.

    Attributes:
        tp: ``[P]`` hits among the predictions up to and including each.
        fp: ``[P]`` the others.
        lesions: all lesions.
        cases: all cases.
    """

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    lesions: int
    cases: int


@dataclass(frozen=True)
class RankedDetections:
    """Predictions of all cases, best score first; equal scores in the order of the cases.

    Attributes:
        scores: ``[P]`` descending.
        hits: ``[P]`` whether the prediction claimed a lesion.
        cases: ``[P]`` index of its case.
        lesions_per_case: ``[C]``.
    """

    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    cases: NDArray[np.int64]
    lesions_per_case: NDArray[np.int64]

    @cached_property
    def group_ends(self) -> NDArray[np.int64]:
        """Index of the last prediction of each distinct score: only there lies an attainable threshold."""
        if len(self.scores) == 0:
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(np.append(np.diff(self.scores) != 0, True))

    def counts(self, weights: Weights | None = None) -> Counts:
        """Running counts; ``weights`` ``[C]`` are the multiplicities of the cases, all 1 by default."""
        each = np.ones(len(self.lesions_per_case), dtype=np.int64) if weights is None else weights
        times = each[self.cases]
        tp = np.cumsum(times * self.hits)
        return Counts(tp, np.cumsum(times) - tp, int(self.lesions_per_case @ each), int(each.sum()))


def rank_detections(
    records: Sequence[CaseRecord],
    *,
    iou: float,
    label: int | None = None,
    max_detections: int | None = 100,
) -> RankedDetections:
    """Rank the predictions of ``records``.

    Args:
        records: cases; predictions best first, as in :class:`~nndet_psma.evaluation.record.CaseRecord`.
        iou: threshold of a match; must be among the record's.
        label: keep only this class; None pools all classes (matches stay within a class).
        max_detections: per case and class only so many best predictions count; None for all.

    Raises:
        ValueError: a record was not matched at ``iou``.
    """
    scores: list[float] = []
    hits: list[bool] = []
    cases: list[int] = []
    for case, record in enumerate(records):
        seen: dict[int, int] = {}
        for prediction, lesion in zip(record.predictions, record.claims(iou), strict=True):
            seen[prediction.label] = seen.get(prediction.label, 0) + 1
            within = max_detections is None or seen[prediction.label] <= max_detections
            if within and label in (None, prediction.label):
                scores.append(prediction.score)
                hits.append(lesion >= 0)
                cases.append(case)
    order = np.argsort(-np.array(scores, dtype=np.float64), kind="stable")
    lesions = [sum(label in (None, lesion.label) for lesion in record.lesions) for record in records]
    return RankedDetections(
        np.array(scores, dtype=np.float64)[order],
        np.array(hits, dtype=bool)[order],
        np.array(cases, dtype=np.int64)[order],
        np.array(lesions, dtype=np.int64),
    )
