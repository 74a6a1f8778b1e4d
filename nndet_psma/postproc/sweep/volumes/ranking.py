"""Lesions in 3D under many filter settings at once: who finds which, average precision, FROC, counts at thresholds.

The rules are those of :mod:`nndet_psma.evaluation`: predictions choose among the lesions of their class in the order of
their scores (:mod:`nndet_psma.evaluation.detection.matching`), average precision and FROC rank the best
:data:`nndet_psma.postproc.steps.ranking.MAX_CANDIDATES` of every case. A filter takes boxes away; those left choose
anew.

What makes it quick: few boxes touch a lesion at all, and only where one of them stands can precision have a peak. All
arrays have the settings on their last axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.box import pairwise_iou
from nndet_psma.boxes.detections import Detections
from nndet_psma.evaluation.detection.average_precision import RECALL_STEPS
from nndet_psma.evaluation.detection.froc import FP_RATES
from nndet_psma.evaluation.detection.record import DEFAULT_IOUS
from nndet_psma.postproc.steps.box_slicing import covered_centres
from nndet_psma.postproc.steps.ranking import MAX_CANDIDATES
from nndet_psma.postproc.sweep.case import SweepCase
from nndet_psma.postproc.sweep.image_ranking import Images

MAP_IOUS = DEFAULT_IOUS
"""IoUs that nnDetection's mAP is the mean over: 0.10, 0.15 .. 0.50."""

Ints = NDArray[np.int64]
Masks = NDArray[np.bool_]
Values = NDArray[np.float64]

_CELLS = 1 << 19  # of the largest array looked at together: stays in the cache, roughly


class VolumeRanking:
    """Boxes of all cases, best score first, and the lesions they may find.

    Args:
        boxes: 3D, case by case, in each the best score first.
        case: ``[N]`` index of the case.
        cases: for their truth: 3D boxes with labels.
        group: ``[C]`` group of every case, from 0; groups can be left out of a value.
        ious: ``[I]`` ascending; overlaps of a hit that are looked at.
    """

    def __init__(
        self, boxes: Detections, case: Ints, cases: Sequence[SweepCase], group: Ints, ious: Sequence[float]
    ) -> None:
        self.order = np.argsort(-boxes.scores, kind="stable")
        self.boxes, self.case = boxes.select(self.order), case[self.order]
        self.ious = np.array(ious)
        self.num_groups = int(group.max()) + 1
        self.group = group[self.case]
        self.cases_of = np.bincount(group, minlength=self.num_groups)
        self.pairs = self._find_pairs(cases)
        self.contenders = np.unique(self.pairs[:, 0]) if len(self.pairs) else np.zeros(0, dtype=np.int64)
        self.lesions = _count_lesions(cases, group, self.num_groups)
        self.num_truth = sum(len(each.truth) for each in cases)
        self.cases, self.case_group = cases, group

    @cached_property
    def images(self) -> Images:
        """Slices of all cases."""
        return Images.of(self.cases)

    @cached_property
    def on_images(self) -> tuple[Ints, Ints]:
        """Rows ``[K]`` of boxes and the slices ``[K]`` that each of them is on, by the rule of the slicing."""
        begin, end = covered_centres(self.boxes.boxes[:, 0], self.boxes.boxes[:, 3])
        count = end - begin
        row = np.repeat(np.arange(len(count)), count)
        step = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        return row, self.images.number(self.case[row], begin[row] + step)

    def _find_pairs(self, cases: Sequence[SweepCase]) -> Ints:
        """(row, lesion, number of IoUs at which the row hits it) ``[P, 3]`` in the order in which rows choose."""
        found, first_lesion = [np.zeros((0, 3), dtype=np.int64)], 0
        for index, each in enumerate(cases):
            rows = np.flatnonzero(self.case == index)
            own = self.boxes.select(rows)
            overlap = (
                pairwise_iou(own.boxes, each.truth.boxes) if len(each.truth) else np.zeros((len(own), 0))
            )
            overlap = overlap * (own.labels[:, None] == each.truth.labels[None, :])
            level = np.searchsorted(self.ious, overlap, side="right")
            place, lesion = np.nonzero(level)
            closest = np.lexsort((lesion, -overlap[place, lesion], place))
            place, lesion = place[closest], lesion[closest]
            found.append(np.stack([rows[place], lesion + first_lesion, level[place, lesion]], axis=1))
            first_lesion += len(each.truth)
        return np.concatenate(found)

    def portions(self, number: int) -> list[slice]:
        """``number`` settings in portions that fit into memory."""
        size = max(1, _CELLS // max(len(self.boxes), len(self.contenders) * len(self.ious), 1))
        return [slice(begin, min(begin + size, number)) for begin in range(0, number, size)]

    def under(self, keep: Masks) -> RankedSettings:
        """What is left, and who finds which lesion, when each setting keeps some boxes.

        Args:
            keep: ``[F, N]`` in the order in which the boxes were given.
        """
        kept = np.ascontiguousarray(keep[:, self.order].T)
        counted = kept.copy()
        for index in np.unique(self.case).tolist():
            rows = np.flatnonzero(self.case == index)
            if len(rows) > MAX_CANDIDATES:
                counted[rows] &= np.cumsum(kept[rows], axis=0, dtype=np.int32) <= MAX_CANDIDATES
        return RankedSettings(self, kept, counted, self._claims(kept))

    def _claims(self, kept: Masks) -> Masks:
        """Whether every contender finds a lesion ``[H, I, F]``."""
        hit = np.zeros((len(self.contenders), len(self.ious), kept.shape[1]), dtype=bool)
        taken = np.zeros((self.num_truth, *hit.shape[1:]), dtype=bool)
        places = np.searchsorted(self.contenders, self.pairs[:, 0]).tolist()
        for place, (row, lesion, level) in zip(places, self.pairs.tolist(), strict=True):
            free = kept[row] & ~hit[place, :level] & ~taken[lesion, :level]
            hit[place, :level] |= free
            taken[lesion, :level] |= free
        return hit


@dataclass(frozen=True)
class RankedSettings:
    """Some filter settings, looked at together.

    Attributes:
        ranking: the boxes.
        kept: ``[N, F]`` boxes that are left, by rank.
        counted: ``[N, F]`` those among the best of their case, which average precision and FROC rank.
        hit: ``[H, I, F]`` whether each contender finds a lesion.
    """

    ranking: VolumeRanking
    kept: Masks
    counted: Masks
    hit: Masks

    def points(self, thresholds: Values, iou: float) -> tuple[Ints, Ints]:
        """Boxes left at each score threshold, and those that find a lesion: ``[G, F, T]`` each."""
        ranking = self.ranking
        reach = np.searchsorted(-ranking.boxes.scores, -thresholds, side="right")
        level = int(np.flatnonzero(ranking.ious == iou)[0])
        boxes, true = [], []
        for group in range(ranking.num_groups):
            rows = np.flatnonzero(ranking.group == group)
            boxes.append(_running(self.kept[rows])[np.searchsorted(rows, reach)].T)
            own = ranking.group[ranking.contenders] == group
            found = _running(self.hit[own, level])
            true.append(found[np.searchsorted(ranking.contenders[own], reach)].T)
        return np.stack(boxes).astype(np.int64), np.stack(true).astype(np.int64)

    def average_precisions(self, ious: Sequence[float]) -> list[Values]:
        """Mean over ``ious`` and classes of the average precision ``[F]``: of all cases, then without each group."""
        groups = range(self.ranking.num_groups) if self.ranking.num_groups > 1 else ()
        parts: list[list[Values]] = [[] for _ in (None, *groups)]
        for label in range(self.ranking.lesions.shape[1]):
            of_class = _ClassCurves.of(self, label, ious)
            for part, without in zip(parts, (None, *groups), strict=True):
                if of_class.num_lesions(without):
                    part.append(of_class.average_precision(without))
        none = np.zeros(self.kept.shape[1])
        return [np.mean(part, axis=0) if part else none for part in parts]

    def froc(self, iou: float) -> list[Values]:
        """Mean sensitivity at the usual false positives per case ``[F]``: of all cases, then without each group."""
        groups = range(self.ranking.num_groups) if self.ranking.num_groups > 1 else ()
        return [self._froc(iou, without) for without in (None, *groups)]

    def image_aucs(self, metric: str) -> list[Values]:
        """Value ``[F]`` of a criterion that ranks slices or patients: of all cases, then without each group."""
        ranking = self.ranking
        row, image = ranking.on_images
        scores = np.where(self.counted[row], ranking.boxes.scores[row, None], 0.0)
        best = ranking.images.best(image, scores)
        groups = range(ranking.num_groups) if ranking.num_groups > 1 else ()
        whole = ranking.images.auc(metric, best)
        return [whole, *(ranking.images.auc(metric, best, ranking.case_group != group) for group in groups)]

    def _froc(self, iou: float, without: int | None) -> Values:
        ranking = self.ranking
        rows = np.flatnonzero(ranking.group != (-1 if without is None else without))
        stays = np.arange(ranking.num_groups) != (-1 if without is None else without)
        lesions, cases = ranking.lesions[stays].sum(), ranking.cases_of[stays].sum()
        scores = ranking.boxes.scores[rows]
        ends = np.flatnonzero(np.append(np.diff(scores) != 0, True)) if len(rows) else rows
        own = stays[ranking.group[ranking.contenders]]
        contenders = ranking.contenders[own]
        level = int(np.flatnonzero(ranking.ious == iou)[0])
        right = self.hit[own, level] & self.counted[contenders]
        tp = _running(right)[np.append(0, np.searchsorted(contenders, rows[ends], side="right"))]
        fp = _running(self.counted[rows])[np.append(0, ends + 1)] - tp
        sensitivity = [_at_rate(tp, fp, rate * cases) for rate in FP_RATES]
        mean: Values = np.mean(sensitivity, axis=0) / max(int(lesions), 1)
        return mean


@dataclass(frozen=True)
class _ClassCurves:
    """Precision of one class.

    Attributes:
        hit: ``[H, I, F]`` of the contenders of the class that are counted.
        above: ``[G, H, F]`` counted boxes of the class in each group, at or above each contender.
        group: ``[H]`` of the contenders.
        lesions: ``[G]``.
    """

    hit: Masks
    above: NDArray[np.int32]
    group: Ints
    lesions: Ints

    @classmethod
    def of(cls, settings: RankedSettings, label: int, ious: Sequence[float]) -> _ClassCurves:
        ranking = settings.ranking
        levels = np.flatnonzero(np.isin(ranking.ious, np.array(ious)))
        own = ranking.boxes.labels[ranking.contenders] == label
        contenders = ranking.contenders[own]
        above = []
        for group in range(ranking.num_groups):
            rows = np.flatnonzero((ranking.group == group) & (ranking.boxes.labels == label))
            places = np.searchsorted(rows, contenders, side="right")
            above.append(_running(settings.counted[rows])[places])
        hit = settings.hit[own][:, levels] & settings.counted[contenders][:, None]
        return cls(hit, np.stack(above), ranking.group[contenders], ranking.lesions[:, label])

    def num_lesions(self, without: int | None) -> int:
        return int(self.lesions.sum() - (0 if without is None else self.lesions[without]))

    def average_precision(self, without: int | None) -> Values:
        """Mean over the IoUs, ``[F]``; :func:`nndet_psma.evaluation.detection.average_precision.average_precision`
        of each.
        """
        stays = np.ones(len(self.group), dtype=bool) if without is None else self.group != without
        above = self.above.sum(axis=0) - (0 if without is None else self.above[without])
        tp = np.cumsum(self.hit[stays], axis=0, dtype=np.int32)
        precision = tp / np.maximum(above[stays], 1)[:, None]
        envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        # how many of the 101 recalls are reached at each contender; recall 0 is reached at the first hit
        reached = RECALL_STEPS * tp // self.num_lesions(without) + (tp > 0)
        steps = np.diff(reached, axis=0, prepend=0)
        mean: Values = ((envelope * steps).sum(axis=0) / (RECALL_STEPS + 1)).mean(axis=0)
        return mean


def _count_lesions(cases: Sequence[SweepCase], group: Ints, num_groups: int) -> Ints:
    """Lesions by group and class ``[G, K]``."""
    labels = max((int(each.truth.labels.max()) + 1 for each in cases if len(each.truth)), default=1)
    counts = np.zeros((num_groups, labels), dtype=np.int64)
    for each, own in zip(cases, group.tolist(), strict=True):
        counts[own] += np.bincount(each.truth.labels, minlength=labels)
    return counts


def _running(rows: Masks) -> NDArray[np.int32]:
    """True values before the first row and after each, ``[N + 1, F]``."""
    counts = np.zeros((len(rows) + 1, *rows.shape[1:]), dtype=np.int32)
    np.cumsum(rows, axis=0, out=counts[1:])
    return counts


def _at_rate(tp: NDArray[np.int32], fp: NDArray[np.int32], allowed: float) -> Values:
    """True positives ``[F]`` where false positives reach ``allowed``, between the points of the curve ``[K, F]``."""
    last = (fp <= allowed).sum(axis=0) - 1
    following = np.minimum(last + 1, len(fp) - 1)
    setting = np.arange(fp.shape[1])
    before, step = fp[last, setting], fp[following, setting] - fp[last, setting]
    share = np.divide(allowed - before, step, out=np.zeros(len(setting)), where=step > 0)
    found: Values = tp[last, setting] + share * (tp[following, setting] - tp[last, setting])
    return found
