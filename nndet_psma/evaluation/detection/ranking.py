"""Detections of many cases ranked by score: the table behind average precision, FROC and operating points.

Weights say how often each case counts: a bootstrap draw is a vector of multiplicities, and a case drawn twice
brings its predictions and its lesions twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.detection.record import CaseRecord, iou_key

Weights = NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """True and false positives when the threshold is lowered from one prediction to the next.

    Attributes:
        tp: ``[P]`` hits among the predictions up to and including each.
        fp: ``[P]`` the others.
        lesions: all lesions.
        cases: all cases.
        patients: all patients.
    """

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    lesions: int
    cases: int
    patients: int


@dataclass(frozen=True)
class RankedDetections:
    """Predictions of all cases, best score first; equal scores in the order of the cases.

    Attributes:
        scores: ``[P]`` descending.
        hits: ``[P]`` whether the prediction claimed a lesion.
        cases: ``[P]`` index of its case.
        lesions_per_case: ``[C]``.
        leads: ``[C]`` whether it is the first case of its patient; None when every case is a patient.
    """

    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    cases: NDArray[np.int64]
    lesions_per_case: NDArray[np.int64]
    leads: NDArray[np.bool_] | None = None

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
        patients = each if self.leads is None else each[self.leads]
        return Counts(
            tp,
            np.cumsum(times) - tp,
            int(self.lesions_per_case @ each),
            int(each.sum()),
            int(patients.sum()),
        )


def rank_detections(
    records: Sequence[CaseRecord],
    *,
    iou: float,
    label: int | None = None,
    max_detections: int | None = 100,
) -> RankedDetections:
    """Rank the predictions of ``records``.

    Args:
        records: cases; predictions best first, as in :class:`~nndet_psma.evaluation.detection.record.CaseRecord`.
        iou: threshold of a match; must be among the record's.
        label: keep only this class; None pools all classes (matches stay within a class).
        max_detections: per case and class only so many best predictions count; None for all.

    Raises:
        ValueError: a record was not matched at ``iou``.
    """
    columns = DetectionColumns.of(records)
    return columns.rank([iou_key(iou)], label=label, max_detections=max_detections)[0]


@dataclass(frozen=True)
class DetectionColumns:
    """Predictions and lesions of all cases as arrays; ranks them for any class, rule and part of the lesions.

    Attributes:
        records: the cases.
        scores: ``[P]`` case after case, in each the best first.
        labels: ``[P]``.
        cases: ``[P]``.
        places: ``[P]`` how many of the same case and class stand before it.
        lesion_labels: ``[L]`` case after case.
        lesion_cases: ``[L]``.
        leads: ``[C]`` first case of its patient.
    """

    records: Sequence[CaseRecord]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    cases: NDArray[np.int64]
    places: NDArray[np.int64]
    lesion_labels: NDArray[np.int64]
    lesion_cases: NDArray[np.int64]
    leads: NDArray[np.bool_]

    @classmethod
    def of(cls, records: Sequence[CaseRecord]) -> DetectionColumns:
        """Gather the columns."""
        predictions = [prediction for record in records for prediction in record.predictions]
        lesions = [lesion for record in records for lesion in record.lesions]
        labels = np.array([prediction.label for prediction in predictions], dtype=np.int64)
        cases = _owner([len(record.predictions) for record in records])
        _, first = np.unique([record.patient_id for record in records], return_index=True)
        leads = np.zeros(len(records), dtype=bool)
        leads[first] = True
        return cls(
            records,
            np.array([prediction.score for prediction in predictions], dtype=np.float64),
            labels,
            cases,
            _places(cases, labels),
            np.array([lesion.label for lesion in lesions], dtype=np.int64),
            _owner([len(record.lesions) for record in records]),
            leads,
        )

    def rank(
        self,
        keys: Sequence[str],
        *,
        label: int | None = None,
        max_detections: int | None = 100,
        lesions: NDArray[np.bool_] | None = None,
    ) -> list[RankedDetections]:
        """One ranking per hit rule; they share the arrays that do not depend on it, unless ``lesions`` is given.

        Args:
            keys: of hit rules.
            label: keep only this class; None pools all.
            max_detections: per case and class only so many best predictions count; None for all.
            lesions: ``[L]`` those that count; predictions that claim another count neither way.

        Raises:
            ValueError: a record was not matched by one of the rules.
        """
        chosen = np.ones(len(self.scores), dtype=bool) if label is None else self.labels == label
        wanted = (
            np.ones(len(self.lesion_labels), dtype=bool) if label is None else self.lesion_labels == label
        )
        if max_detections is not None:
            chosen &= self.places < max_detections
        if lesions is not None:
            wanted &= lesions
        per_case = np.bincount(self.lesion_cases[wanted], minlength=len(self.records)).astype(np.int64)
        order = np.flatnonzero(chosen)
        order = order[np.argsort(-self.scores[order], kind="stable")]
        scores, cases = self.scores[order], self.cases[order]
        ranked = []
        for key in keys:
            claims = self._claims(key)[order]
            if lesions is None:
                ranked.append(RankedDetections(scores, claims >= 0, cases, per_case, self.leads))
                continue
            kept = (claims < 0) | np.append(wanted, False)[claims]
            ranked.append(
                RankedDetections(scores[kept], claims[kept] >= 0, cases[kept], per_case, self.leads)
            )
        return ranked

    def _claims(self, key: str) -> NDArray[np.int64]:
        """``[P]`` row among all lesions, -1 for none."""
        parts = [record.claims_by(key) for record in self.records]
        claims = np.fromiter(chain.from_iterable(parts), dtype=np.int64, count=len(self.scores))
        before = np.cumsum([0, *(len(record.lesions) for record in self.records)])[self.cases]
        return np.where(claims >= 0, claims + before, -1)


def _owner(sizes: Sequence[int]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(sizes)), np.array(sizes, dtype=np.int64)).astype(np.int64)


def _places(cases: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the same case and class stand before each."""
    if len(cases) == 0:
        return np.zeros(0, dtype=np.int64)
    order = np.lexsort((labels, cases))  # stable: within a class the order stays
    fresh = np.append(True, (np.diff(cases[order]) != 0) | (np.diff(labels[order]) != 0))
    starts = np.flatnonzero(fresh)
    places = np.empty(len(cases), dtype=np.int64)
    places[order] = np.arange(len(cases)) - starts[np.cumsum(fresh) - 1]
    return places
