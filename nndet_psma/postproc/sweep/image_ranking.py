"""How well the best candidate tells slices, or patients, with lesions from those without: ``auc`` and ``patient_auc``.

These criteria rank: every candidate that the filters leave counts, whatever its score and its votes, as in the
evaluation (``paper_auc``, ``patient_auc``; see :func:`nndet_psma.postproc.steps.ranking.ranking_settings`). The score
of a slice is its best candidate, 0 without one; that of a patient the best of all its slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from nndet_psma.core.errors import UserError
from nndet_psma.postproc.steps.box_slicing import covered_centres
from nndet_psma.postproc.sweep.case import SweepCase

Ints = NDArray[np.int64]
Masks = NDArray[np.bool_]
Values = NDArray[np.float64]

IMAGES, PATIENTS = "auc", "patient_auc"
UNDECIDED = 0.5
"""Value where only one of the two kinds is there, as may happen without a group: nothing can be ranked."""

_DIGITS = 6  # of a score in files of predictions, which the evaluation ranks


@dataclass(frozen=True)
class Images:
    """Axial slices of all cases, one case after the other.

    Attributes:
        first: ``[C + 1]`` number of the first slice of every case.
        positive: ``[S]`` whether the slice holds a lesion.
        patient: ``[C]`` number of the patient of every case.
        diseased: ``[C]`` whether the case has a lesion, also one that the crop lost.
    """

    first: Ints
    positive: Masks
    patient: Ints
    diseased: Masks

    @classmethod
    def of(cls, cases: Sequence[SweepCase]) -> Images:
        """The slices of the cases."""
        first = np.cumsum([0, *(case.num_slices for case in cases)]).astype(np.int64)
        positive = np.zeros(int(first[-1]), dtype=bool)
        for begin, case in zip(first.tolist(), cases, strict=False):
            positive[begin + _slices_with_lesion(case)] = True
        names = [case.case_id if case.patient is None else case.patient for case in cases]
        patient = np.unique(names, return_inverse=True)[1].reshape(-1).astype(np.int64)
        return cls(first, positive, patient, np.array([case.num_lesions > 0 for case in cases], dtype=bool))

    def number(self, case: Ints, slices: Ints) -> Ints:
        """Number of a slice of a case; what lies beyond its ends counts on the first or last."""
        numbers: Ints = self.first[case] + np.clip(slices, 0, np.diff(self.first)[case] - 1)
        return numbers

    def best(self, images: Ints, scores: Values) -> Values:
        """Best score of every slice ``[S, F]``, 0 without a candidate.

        Args:
            images: ``[N]`` slice of every candidate.
            scores: ``[N, F]`` its score under each setting, 0 where it is filtered out.
        """
        found = np.zeros((len(self.positive), scores.shape[1]))
        if len(images):
            order = np.argsort(images, kind="stable")
            owner, start = np.unique(images[order], return_index=True)
            found[owner] = np.maximum.reduceat(scores[order], start, axis=0)
        return found

    def auc(self, metric: str, scores: Values, counted: Masks | None = None) -> Values:
        """Area under the ROC curve ``[F]``.

        Args:
            metric: :data:`IMAGES` or :data:`PATIENTS`.
            scores: ``[S, F]`` from :meth:`best`.
            counted: ``[C]`` cases that count; all by default. All cases of a patient count, or none.
        """
        cases = np.ones(len(self.patient), dtype=bool) if counted is None else counted
        rounded = np.round(scores, _DIGITS)
        if metric == IMAGES:
            kept = np.repeat(cases, np.diff(self.first))
            return _auc(rounded[kept], self.positive[kept])
        return _auc(*self._patients(rounded, cases))

    def check(self, metric: str) -> None:
        """Refuse cases that cannot be ranked.

        Raises:
            UserError: all slices, or all patients, are of one kind.
        """
        positive = self.positive if metric == IMAGES else self._patients(np.zeros((len(self.positive), 1)))[1]
        if positive.all() or not positive.any():
            what = "slice" if metric == IMAGES else "patient"
            raise UserError(
                f"criterion {metric} is undefined: every validation {what} holds a lesion, or none does",
                remedy="Choose another sweep.criterion",
            )

    def _patients(self, scores: Values, cases: Masks | None = None) -> tuple[Values, Masks]:
        """Scores ``[P, F]`` and truth ``[P]`` of the patients of some cases."""
        chosen = np.flatnonzero(np.ones(len(self.patient), dtype=bool) if cases is None else cases)
        names, owner = np.unique(self.patient[chosen], return_inverse=True)
        best, diseased = np.zeros((len(names), scores.shape[1])), np.zeros(len(names), dtype=bool)
        for case, place in zip(chosen.tolist(), owner.reshape(-1).tolist(), strict=True):
            own = scores[self.first[case] : self.first[case + 1]]
            best[place] = np.maximum(best[place], own.max(axis=0, initial=0.0))
            diseased[place] |= self.diseased[case]
        return best, diseased


def _slices_with_lesion(case: SweepCase) -> Ints:
    """Slices of the case that hold a lesion, by its slice boxes or its boxes in 3D."""
    if not len(case.truth):
        return np.zeros(0, dtype=np.int64)
    if case.truth.dim == 2:
        return case.truth.columns["slice"].astype(np.int64)
    low, high = case.truth.boxes[:, 0], case.truth.boxes[:, 3]
    there = high > low  # a lesion that the crop lost has an empty box
    begin, end = covered_centres(low[there], high[there])
    parts = [np.arange(a, b) for a, b in zip(begin.tolist(), end.tolist(), strict=True)]
    slices: Ints = np.clip(np.concatenate([np.zeros(0, dtype=np.int64), *parts]), 0, case.num_slices - 1)
    return slices


def _auc(scores: Values, positive: Masks) -> Values:
    """Mann and Whitney's statistic of every column, equal scores counting one half."""
    hits = int(positive.sum())
    pairs = hits * (len(positive) - hits)
    if pairs == 0:
        return np.full(scores.shape[1], UNDECIDED)
    ranks = rankdata(scores, axis=0)[positive].sum(axis=0)
    area: Values = (ranks - hits * (hits + 1) / 2) / pairs
    return area
