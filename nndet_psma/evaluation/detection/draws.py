"""Scores of many bootstrap draws at once: the same numbers as one by one, without a pass over all predictions for each.

A draw is a row of multiplicities of the cases. Every function equals its namesake for single weights
(:func:`~nndet_psma.evaluation.detection.average_precision.average_precision`,
:meth:`~nndet_psma.evaluation.detection.froc.FrocCurve.sensitivity_at`,
:func:`~nndet_psma.evaluation.detection.operating_points.operating_points`,
:func:`~nndet_psma.evaluation.statistics.auc.rank_auc`), with NaN for None. What makes it quick: precision has its
peaks at hits, so only those are visited; where false positives reach a rate is found by bisection; rankings that
differ in their hits alone share the running totals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.detection.average_precision import RECALL_STEPS
from nndet_psma.evaluation.detection.froc import FP_RATES
from nndet_psma.evaluation.detection.ranking import RankedDetections, Weights

Values = NDArray[np.float64]

_CELLS = 1_000_000  # of the largest intermediate array: stays in the cache, roughly


@dataclass(frozen=True)
class DrawnCurves:
    """Of one ranking: average precision ``[D]`` and sensitivities ``[D, R]`` at the rates."""

    average_precision: Values
    sensitivities: Values


def drawn_curves(
    family: Sequence[RankedDetections], draws: Weights, rates: Sequence[float] = FP_RATES
) -> list[DrawnCurves]:
    """Average precision and FROC of every ranking in every draw.

    Args:
        family: rankings of the same predictions and lesions that differ in ``hits`` only.
        draws: ``[D, C]``.
        rates: false positives per case.

    Raises:
        ValueError: the rankings are of different predictions.
    """
    if not family:
        return []
    if any(other.cases is not family[0].cases for other in family[1:]):
        raise ValueError("the rankings do not share their predictions")
    parts: list[list[tuple[Values, Values]]] = [[] for _ in family]
    size = max(1, _CELLS // max(len(family[0].cases), 1))
    for start in range(0, len(draws), size):
        part = draws[start : start + size]
        times = part.astype(np.int32)[:, family[0].cases]
        total = np.cumsum(times, axis=1, dtype=np.int32)
        for collected, ranked in zip(parts, family, strict=True):
            running = _Running.of(ranked, part, times, total)
            collected.append((running.average_precision(), running.sensitivities(rates)))
    empty = (np.zeros(0), np.zeros((0, len(rates))))
    return [DrawnCurves(*(np.concatenate(c) for c in zip(*(each or [empty]), strict=True))) for each in parts]


def drawn_share(hit: NDArray[np.bool_], cases: NDArray[np.int64], draws: Weights) -> Values:
    """Share ``[D]`` of rows ``[N]`` of the given cases that are hits; NaN where a draw has no row."""
    size = draws.shape[1]
    hits, all_rows = np.bincount(cases[hit], minlength=size), np.bincount(cases, minlength=size)
    return divided(draws @ hits, draws @ all_rows)


def drawn_auc(
    ranks: NDArray[np.int64], positive: NDArray[np.bool_], cases: NDArray[np.int64], draws: Weights
) -> Values:
    """Area under the ROC curve ``[D]`` of rows ``[N]`` that belong to cases; NaN where a draw lacks one kind."""
    if len(ranks) == 0:
        return np.full(len(draws), np.nan)
    # rows alike in all three are one row with a count: most images have the same score, none
    keys, counts = np.unique(np.stack([ranks, cases, positive], axis=1), axis=0, return_counts=True)
    starts = np.flatnonzero(np.append(True, np.diff(keys[:, 0]) != 0))
    found = []
    size = max(1, _CELLS // len(keys))
    for start in range(0, len(draws), size):
        times = draws[start : start + size][:, keys[:, 1]] * counts
        positives = np.add.reduceat(times * keys[:, 2], starts, axis=1).astype(np.float64)
        negatives = np.add.reduceat(times * (1 - keys[:, 2]), starts, axis=1).astype(np.float64)
        below = np.cumsum(negatives, axis=1) - negatives
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        found.append(divided((positives * (below + negatives / 2)).sum(axis=1), pairs))
    return np.concatenate(found) if found else np.zeros(0)


def drawn_points(ranked: RankedDetections, thresholds: Sequence[float], draws: Weights) -> dict[str, Values]:
    """Rates ``[D, T]`` of :data:`~nndet_psma.evaluation.detection.operating_points.RATES`; NaN where undefined.

    Counts at a fixed threshold are sums over cases, so one product of matrices does all draws.
    """
    size = len(ranked.lesions_per_case)
    tp, called = np.zeros((size, len(thresholds))), np.zeros((size, len(thresholds)))
    for column, threshold in enumerate(thresholds):
        counted = ranked.scores >= threshold
        called[:, column] = np.bincount(ranked.cases[counted], minlength=size)
        tp[:, column] = np.bincount(ranked.cases[counted & ranked.hits], minlength=size)
    hits, predicted = draws @ tp, draws @ called
    lesions, cases = (draws @ ranked.lesions_per_case)[:, None], draws.sum(axis=1)[:, None]
    leads = np.ones(size, dtype=bool) if ranked.leads is None else ranked.leads
    patients = draws[:, leads].sum(axis=1)[:, None]
    shape = hits.shape
    whole = np.broadcast_to(lesions, shape)
    return {
        "sensitivity": divided(hits, whole),
        "ppv": divided(hits, predicted),
        "f1": np.where(whole > 0, divided(2 * hits, predicted + whole), np.nan),
        "fp_per_case": divided(predicted - hits, np.broadcast_to(cases, shape)),
        "fp_per_patient": divided(predicted - hits, np.broadcast_to(patients, shape)),
    }


def mean_of_drawn(values: Sequence[Values]) -> Values:
    """Mean ``[D]`` over several scores ``[D]`` of those that are defined; NaN where none is."""
    table = np.stack(list(values))
    defined = ~np.isnan(table)
    return divided(np.where(defined, table, 0.0).sum(axis=0), defined.sum(axis=0))


def divided(part: NDArray[Any], whole: NDArray[Any]) -> Values:
    """Quotient; NaN where ``whole`` is 0."""
    quotient: Values = np.divide(
        part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) != 0
    )
    return quotient


@dataclass(frozen=True)
class _Running:
    """Running counts of some draws ``[d]``.

    Attributes:
        tp: ``[d, H + 1]`` true positives before the first hit and after each.
        at_hit: ``[d, H]`` predictions up to and including each hit.
        total: ``[d, P]`` predictions.
        ends: ``[G]`` last prediction of each distinct score.
        hits_before: ``[G]`` hits up to and including each end.
        lesions: ``[d]``.
        cases: ``[d]``.
    """

    tp: NDArray[np.int64]
    at_hit: NDArray[np.int32]
    total: NDArray[np.int32]
    ends: NDArray[np.int64]
    hits_before: NDArray[np.int64]
    lesions: NDArray[np.int64]
    cases: NDArray[np.int64]

    @classmethod
    def of(
        cls, ranked: RankedDetections, draws: Weights, times: NDArray[np.int32], total: NDArray[np.int32]
    ) -> _Running:
        places = np.flatnonzero(ranked.hits)
        tp = np.zeros((len(draws), len(places) + 1), dtype=np.int64)
        np.cumsum(times[:, places], axis=1, out=tp[:, 1:])
        ends = ranked.group_ends
        return cls(
            tp,
            total[:, places],
            total,
            ends,
            np.searchsorted(places, ends, side="right"),
            draws @ ranked.lesions_per_case,
            draws.sum(axis=1, dtype=np.int64),
        )

    def average_precision(self) -> Values:
        precision = self.tp[:, 1:] / np.maximum(self.at_hit, 1)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        # how many of the 101 recalls are reached at each hit; recall 0 is reached at the first
        reached = np.zeros_like(self.tp)
        reached[:, 1:] = RECALL_STEPS * self.tp[:, 1:] // np.maximum(self.lesions, 1)[:, None] + 1
        values = (envelope * np.diff(reached, axis=1)).sum(axis=1) / (RECALL_STEPS + 1)
        return np.where(self.lesions > 0, values, np.nan)

    def sensitivities(self, rates: Sequence[float]) -> Values:
        allowed = np.asarray(rates, dtype=np.float64)[None, :] * self.cases[:, None]
        group = self._last_group(allowed)
        following = np.minimum(group + 1, len(self.ends) - 1)
        hits, spurious = self._counts(group)
        more_hits, more_spurious = self._counts(following)
        share = divided(allowed - spurious, more_spurious - spurious)
        share = np.where(group < len(self.ends) - 1, share, 0.0)
        return divided(
            hits + share * (more_hits - hits), np.repeat(self.lesions[:, None], len(rates), axis=1)
        )

    def _last_group(self, allowed: NDArray[np.float64]) -> NDArray[np.int64]:
        """Last distinct score at which no more than ``allowed`` ``[d, R]`` false positives are counted, -1 for none."""
        low = np.full(allowed.shape, -1, dtype=np.int64)
        high = np.full(allowed.shape, len(self.ends) - 1, dtype=np.int64)
        while (low < high).any():
            middle = (low + high + 1) // 2
            within = self._counts(middle)[1] <= allowed
            low, high = np.where(within, middle, low), np.where(within, high, middle - 1)
        return low

    def _counts(self, group: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """True and false positives ``[d, R]`` at a distinct score; -1 stands before the first."""
        rows = np.arange(len(group))[:, None]
        before = group < 0
        hits = np.where(before, 0, self.tp[rows, np.append(self.hits_before, 0)[group]])
        if len(self.ends) == 0:
            return hits, np.zeros_like(hits)
        total = np.where(before, 0, self.total[rows, self.ends[group]])
        return hits, total - hits
