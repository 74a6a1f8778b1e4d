"""Boxes, hits and found lesions of every setting of a joint sweep, a portion of filter settings at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nndet_psma.postproc.sweep.case import SweepCase
from nndet_psma.postproc.sweep.fixed_boxes import FixedBoxes
from nndet_psma.postproc.sweep.slices.components import UnitIndex, make_buckets, make_units
from nndet_psma.postproc.sweep.slices.vote_events import EventMaker, Events, group_boxes

_DENSE = 1 << 21  # counts held at once

Ints = NDArray[np.int64]
Count = TypeVar("Count", bound=np.integer[Any])


@dataclass(frozen=True)
class Axes:
    """What is tried besides the filters.

    Attributes:
        min_votes: ``[V]`` ascending; 1 .. V.
        vote_iou: ``[I]`` ascending.
        hit_iou: ``[H]`` ascending.
        score_threshold: ``[T]`` ascending.
    """

    min_votes: Ints
    vote_iou: NDArray[np.float64]
    hit_iou: NDArray[np.float64]
    score_threshold: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(V, I, H, T)."""
        return len(self.min_votes), len(self.vote_iou), len(self.hit_iou), len(self.score_threshold)


@dataclass(frozen=True)
class Counts:
    """Counts of some filter settings, for each group of cases.

    Attributes:
        boxes: ``[G, F', V, I, 1, T]`` slice boxes that are left.
        true: ``[G, F', V, I, H, T]`` those that hit a lesion.
        found: ``[G, F', V, I, H, T]`` lesions that are hit.
    """

    boxes: NDArray[np.int32]
    true: NDArray[np.int32]
    found: NDArray[np.int32]


class VoteCounter:
    """Counts what every setting leaves and hits.

    The vote of a component of overlapping boxes depends only on which of its boxes a filter leaves and on who overlaps
    whom. Each such vote (a *unit*) is worked out once for all settings that share it; the counts of a setting are sums
    over its units, and from one filter setting to the next only the units that change are added and taken off.

    Args:
        cases: validation cases.
        given: their boxes.
        masks: ``[F, N]`` boxes each filter setting keeps.
        axes: what is tried besides.
        case_group: ``[cases]`` number of the group of each case, from 0.
    """

    def __init__(
        self,
        cases: Sequence[SweepCase],
        given: FixedBoxes,
        masks: NDArray[np.bool_],
        axes: Axes,
        case_group: Ints,
    ) -> None:
        self.axes = axes
        self.num_filters = len(masks)
        self.num_groups = int(case_group.max()) + 1
        self.index, events, component_case = _work_out(cases, given, masks, axes)
        lesion_case = np.repeat(np.arange(len(cases)), [case.num_lesions for case in cases])
        self._boxes = self._box_events(events, case_group[component_case])
        self._lesions = _lesion_events(events, self.index.base, case_group[lesion_case])

    def counts(self) -> Iterator[tuple[int, Counts]]:
        """(first filter setting, counts) of every portion."""
        v, i, h, t = self.axes.shape
        row = self.num_groups * i * v * (h + 1) * (t + 1)
        step = max(1, _DENSE // row)
        before = np.zeros((i, self._boxes.shape[1]), dtype=np.int32)
        for begin in range(0, self.num_filters, step):
            filters = slice(begin, min(begin + step, self.num_filters))
            change = self._change(filters)
            change[0] += before
            np.cumsum(change, axis=0, out=change)
            before = change[-1].copy()
            yield begin, Counts(*self._box_counts(change), self._found(filters))

    def _box_events(self, events: Events, group: Ints) -> sparse.csr_matrix:
        """``[U, G * V * (H + 1) * (T + 1)]``: +1 where a stage begins, -1 where it ends."""
        v, _, h, t = self.axes.shape
        owner = np.searchsorted(self.index.base, events.unit, side="right") - 1
        cell = ((group[owner] * v + events.votes - 1) * (h + 1) + events.level) * (t + 1)
        columns = np.concatenate([cell + events.low, cell + events.high])
        ones = np.ones(len(cell), dtype=np.int32)
        shape = (_num_units(self.index), self.num_groups * v * (h + 1) * (t + 1))
        entries = (np.concatenate([ones, -ones]), (np.tile(events.unit, 2), columns))
        return sparse.coo_matrix(entries, shape=shape).tocsr()

    def _change(self, filters: slice) -> NDArray[np.int32]:
        """Events that each filter setting adds to those of the one before, ``[F', I, columns]``."""
        pattern, index = self.index.pattern, self.index
        number, width = filters.stop - filters.start, len(self.axes.vote_iou)
        earlier = np.maximum(np.arange(filters.start, filters.stop) - 1, 0)
        changed = pattern[filters] != pattern[earlier]
        if filters.start == 0:
            changed[0] = True
        place, component = np.nonzero(changed)
        row = (place[:, None] * width + np.arange(width)).reshape(-1)
        start = index.base[component, None] + index.level[component]
        new = start + (pattern[filters][place, component] * index.width[component])[:, None]
        old = start + (pattern[earlier][place, component] * index.width[component])[:, None]
        gone = np.repeat(place > 0 if filters.start == 0 else np.ones(len(place), dtype=bool), width)
        rows = np.concatenate([row, row[gone]])
        units = np.concatenate([new.reshape(-1), old.reshape(-1)[gone]])
        sign = np.concatenate([np.ones(len(row)), -np.ones(int(gone.sum()))]).astype(np.int32)
        chosen = sparse.coo_matrix((sign, (rows, units)), shape=(number * width, self._boxes.shape[0]))
        dense: NDArray[np.int32] = (chosen.tocsr() @ self._boxes).toarray()
        return dense.reshape(number, width, -1)

    def _box_counts(self, events: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        v, i, h, t = self.axes.shape
        counts = events.reshape(-1, i, self.num_groups, v, h + 1, t + 1)
        counts = np.cumsum(counts[..., :t], axis=-1, dtype=np.int32)
        counts = _sum_from(_sum_from(counts, 3), 4)
        counts = counts.transpose(2, 0, 3, 1, 4, 5)
        return counts[..., :1, :], counts[..., 1:, :]

    def _found(self, filters: slice) -> NDArray[np.int32]:
        v, i, h, t = self.axes.shape
        number = filters.stop - filters.start
        found = np.zeros((self.num_groups, number * i, v, h, t), dtype=np.uint16)
        for lesion in self._lesions:
            units = self.index.units(filters, lesion.components).transpose(0, 2, 1).reshape(number * i, -1)
            combinations, which = _unique_rows(units)
            hit = lesion.hit(combinations, self.axes)
            found[lesion.group] += hit[which] if len(hit) > 1 else hit
        shaped = found.reshape(self.num_groups, number, i, v, h, t).transpose(0, 1, 3, 2, 4, 5)
        return shaped.astype(np.int32)


@dataclass(frozen=True)
class _LesionEvents:
    """Stages that hit one lesion, by ascending unit."""

    group: int
    components: Ints
    unit: Ints
    votes: Ints
    level: Ints
    low: Ints
    high: Ints

    def hit(self, units: Ints, axes: Axes) -> NDArray[np.bool_]:
        """Whether sets of units ``[K, m]`` hit the lesion: ``[K, V, H, T]``."""
        v, _, h, t = axes.shape
        start, stop = np.searchsorted(self.unit, units), np.searchsorted(self.unit, units, side="right")
        count = (stop - start).reshape(-1)
        event = np.repeat(start.reshape(-1), count)
        event += np.arange(len(event)) - np.repeat(np.cumsum(count) - count, count)
        owner = np.repeat(np.repeat(np.arange(len(units)), units.shape[1]), count)
        cell = ((owner * v + self.votes[event] - 1) * h + self.level[event] - 1) * (t + 1)
        size = len(units) * v * h * (t + 1)
        stages = np.bincount(cell + self.low[event], minlength=size)
        stages -= np.bincount(cell + self.high[event], minlength=size)
        present = np.cumsum(
            stages.astype(np.int16).reshape(-1, v, h, t + 1)[..., :t], axis=-1, dtype=np.int16
        )
        return _sum_from(_sum_from(present, 1), 2) > 0


def _work_out(
    cases: Sequence[SweepCase], given: FixedBoxes, masks: NDArray[np.bool_], axes: Axes
) -> tuple[UnitIndex, Events, Ints]:
    """Every unit and its stages, and the case of every component."""
    group, truth = group_boxes(given.boxes, given.case, cases)
    asked = np.array([sum(len(folds) > 0 for folds in case.raw.values()) for case in cases])[given.case]
    maker = EventMaker(
        given.boxes,
        given.voter,
        asked,
        len(given.names),
        group,
        truth,
        axes.vote_iou,
        axes.hit_iou,
        axes.score_threshold,
    )
    indices, events, component_case = [], [], [np.zeros(0, dtype=np.int64)]
    first_unit = 0
    for bucket in make_buckets(given.boxes, group, asked == 1, float(axes.vote_iou[0])):
        units, index = make_units(bucket, masks, axes.vote_iou, first_unit)
        events += list(maker.events(bucket, units, first_unit))
        indices.append(index)
        component_case.append(given.case[bucket.rows[:, 0]])
        first_unit += len(units.component)
    joined = UnitIndex.join(indices, len(masks), len(axes.vote_iou))
    return joined, Events.join(events), np.concatenate(component_case)


def _lesion_events(events: Events, base: Ints, group: Ints) -> list[_LesionEvents]:
    order = np.argsort(events.hit_lesion, kind="stable")
    lesions = []
    start = np.searchsorted(events.hit_lesion[order], np.arange(len(group) + 1))
    for lesion in np.flatnonzero(np.diff(start)).tolist():
        pairs = order[start[lesion] : start[lesion + 1]]
        rows = events.hit_event[pairs]
        unit = events.unit[rows]
        components = np.unique(np.searchsorted(base, unit, side="right") - 1)
        lesions.append(
            _LesionEvents(
                int(group[lesion]),
                components,
                unit,
                events.votes[rows],
                events.hit_level[pairs],
                events.low[rows],
                events.high[rows],
            )
        )
    return lesions


def _unique_rows(rows: Ints) -> tuple[Ints, Ints]:
    """The distinct rows and which of them each row is; column by column, which is faster than comparing rows."""
    which = np.zeros(len(rows), dtype=np.int64)
    example = np.zeros(1, dtype=np.int64)
    for column in rows.T:
        values = np.unique(column, return_inverse=True)[1].reshape(-1)
        _, example, which = np.unique(which * len(rows) + values, return_index=True, return_inverse=True)
        which = which.reshape(-1)
    return rows[example], which


def _sum_from(counts: NDArray[Count], axis: int) -> NDArray[Count]:
    """Each entry plus all that follow it along an axis."""
    return np.flip(np.cumsum(np.flip(counts, axis), axis=axis, dtype=counts.dtype), axis)


def _num_units(index: UnitIndex) -> int:
    if not len(index.base):
        return 0
    return int(index.base[-1] + (index.pattern[:, -1].max() + 1) * index.width[-1])
