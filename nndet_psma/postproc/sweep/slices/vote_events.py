"""What happens in a vote while the score threshold rises: the stages of every consensus box and what they hit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.box import Boxes, box_volumes
from nndet_psma.boxes.clustering import PartClusters, vote_ranks
from nndet_psma.boxes.detections import Detections
from nndet_psma.postproc.sweep.case import SweepCase
from nndet_psma.postproc.sweep.slices.components import Bucket, Units
from nndet_psma.postproc.sweep.two_phase import next_scores

_PORTION = 1 << 22  # entries of the adjacency looked at together

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TruthBoxes:
    """Slice boxes of the lesions of all cases, by group.

    Attributes:
        boxes: ``[M, 4]``, sorted by group.
        lesion: ``[M]`` number of the lesion, counted on through the cases.
        start: ``[G + 1]`` first row of each group.
    """

    boxes: Boxes
    lesion: Ints
    start: Ints


def group_boxes(boxes: Detections, case: Ints, cases: Sequence[SweepCase]) -> tuple[Ints, TruthBoxes]:
    """Number of case, slice and label of every box ``[N]``, and the truth by that number."""
    truths = [each.truth for each in cases if len(each.truth)]
    truth = Detections.concatenate(truths, dim=2)
    count = np.array([len(each.truth) for each in cases])
    first_lesion = np.cumsum([0, *(each.num_lesions for each in cases)])
    of_truth = np.repeat(np.arange(len(cases)), count)
    keys = [
        np.stack([case, *_slice_and_label(boxes)], axis=1),
        np.stack([of_truth, *_slice_and_label(truth)], axis=1),
    ]
    distinct, number = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
    group, truth_group = np.split(number.reshape(-1), [len(boxes)])
    order = np.argsort(truth_group, kind="stable")
    lesion = (truth.columns["lesion"] if len(truth) else np.zeros(0, dtype=np.int64)) + first_lesion[of_truth]
    start = np.searchsorted(truth_group[order], np.arange(len(distinct) + 1))
    return group, TruthBoxes(truth.boxes[order], lesion[order], start)


def _slice_and_label(boxes: Detections) -> tuple[Ints, Ints]:
    slices = boxes.columns["slice"] if len(boxes) else np.zeros(0, dtype=np.int64)
    return slices, boxes.labels


@dataclass(frozen=True)
class Events:
    """Stages of the consensus boxes of all units.

    A stage is a consensus box of some votes while thresholds ``low <= t < high`` (indices) let just these through.

    Attributes:
        unit: ``[E]`` number of the unit, ascending.
        votes: ``[E]`` largest number of votes it satisfies.
        level: ``[E]`` number of candidates of tau3 at which it hits some lesion.
        low: ``[E]`` first threshold index.
        high: ``[E]`` one after the last.
        hit_event: ``[P]`` row of an event that hits a lesion.
        hit_lesion: ``[P]`` the lesion.
        hit_level: ``[P]`` number of candidates of tau3 at which it does.
    """

    unit: Ints
    votes: Ints
    level: Ints
    low: Ints
    high: Ints
    hit_event: Ints
    hit_lesion: Ints
    hit_level: Ints

    @classmethod
    def join(cls, parts: Sequence[Events]) -> Events:
        """All of them, in order."""
        none = np.zeros(0, dtype=np.int64)
        parts = [cls(none, none, none, none, none, none, none, none), *parts]
        shift = np.cumsum([0, *(len(part.unit) for part in parts)])
        own = ("unit", "votes", "level", "low", "high", "hit_lesion", "hit_level")
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in own}
        joined["hit_event"] = np.concatenate(
            [part.hit_event + s for part, s in zip(parts, shift, strict=False)]
        )
        return cls(**joined)


@dataclass(frozen=True)
class EventMaker:
    """Everything that the stages of a unit depend on.

    Attributes:
        boxes: of all cases and voters.
        voter: ``[N]`` index of the voter.
        asked: ``[N]`` how many voters were asked in the case of a box.
        num_voters: voters.
        group: ``[N]`` number of case, slice and label.
        truth: of all cases.
        ious: ``[I]`` vote IoUs, ascending.
        hit_ious: ``[H]`` candidates of tau3, ascending.
        thresholds: ``[T]`` score thresholds, ascending.
    """

    boxes: Detections
    voter: Ints
    asked: Ints
    num_voters: int
    group: Ints
    truth: TruthBoxes
    ious: NDArray[np.float64]
    hit_ious: NDArray[np.float64]
    thresholds: NDArray[np.float64]

    def events(self, bucket: Bucket, units: Units, first_unit: int) -> Iterator[Events]:
        """Stages of the units of a bucket, in portions."""
        step = max(1, _PORTION // bucket.rows.shape[1] ** 2)
        for begin in range(0, len(units.component), step):
            part = slice(begin, begin + step)
            yield self._events(bucket, part_of_units(units, part), first_unit + begin)

    def _events(self, bucket: Bucket, units: Units, first_unit: int) -> Events:
        seed = unit_seeds(bucket, units, self.ious)
        unit, place = np.nonzero(units.keep)
        n = bucket.rows.shape[1]
        cluster = np.unique(unit * n + seed[unit, place], return_inverse=True)[1].reshape(-1)
        rows = bucket.rows[units.component[unit], place]
        members = Detections(self.boxes.boxes[rows], self.boxes.scores[rows], self.boxes.labels[rows])
        part = self.voter[rows]
        ranks = vote_ranks(cluster, part, self.num_voters)
        clusters = PartClusters(members, part, cluster, ranks, self.num_voters)
        said = clusters.votes()
        scores, rank = members.scores[said], ranks[said]
        low = np.searchsorted(self.thresholds, next_scores(scores, rank), side="right")
        high = np.searchsorted(self.thresholds, scores, side="right")
        seen = low < high  # of equal scores the earlier vote never stands alone
        stages = clusters.running_consensus()[0][seen]
        said, low, high, rank = said[seen], low[seen], high[seen], rank[seen]
        rows = rows[said]
        votes = np.where(rank == self.asked[rows], self.num_voters, rank)
        level, hit_event, hit_lesion, hit_level = self._hits(stages, self.group[rows])
        order_kept = unit[said] + first_unit
        return Events(order_kept, votes, level, low, high, hit_event, hit_lesion, hit_level)

    def _hits(self, stages: Boxes, group: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """Level of every stage, and which stage hits which lesion at which level."""
        count = self.truth.start[group + 1] - self.truth.start[group]
        event = np.repeat(np.arange(len(stages)), count)
        truth = np.repeat(self.truth.start[group], count) + _count_up(count)
        a, b = stages[event], self.truth.boxes[truth]
        shared = np.prod(
            np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None), axis=1
        )
        union = box_volumes(a) + box_volumes(b) - shared
        overlap = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        hit = np.searchsorted(self.hit_ious, overlap, side="right")
        level = np.zeros(len(stages), dtype=np.int64)
        np.maximum.at(level, event, hit)
        some = hit > 0
        return level, event[some], self.truth.lesion[truth[some]], hit[some]


def part_of_units(units: Units, part: slice) -> Units:
    """Some of the units."""
    return Units(units.component[part], units.keep[part], units.agree[part])


def unit_seeds(bucket: Bucket, units: Units, ious: NDArray[np.float64]) -> Ints:
    """Place of the seed of every box that is left, ``[U, n]``: the greedy pass of all units at once."""
    n = bucket.rows.shape[1]
    agree = bucket.overlap[units.component] >= ious[units.agree][:, None, None]
    free = units.keep.copy()
    seed = np.zeros((len(free), n), dtype=np.int64)
    for place in range(n):
        claimed = free[:, place, None] & free & agree[:, place]
        seed[claimed] = place
        free &= ~claimed
    return seed


def _count_up(count: Ints) -> Ints:
    """0, 1 .. count - 1 for every count, in one row."""
    return np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
