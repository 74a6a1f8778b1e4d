"""Boxes that can ever meet in a vote, and every subset of them that some filter leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from nndet_psma.boxes.box import box_volumes
from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.overlaps import overlapping_pairs

_WORD = 20  # boxes of a component whose presence is put into one integer at a time
_BLOCK = 1 << 24  # entries of a mask looked at together: 16 MB


@dataclass(frozen=True)
class Bucket:
    """Components of one size.

    A component is a set of boxes of one case, slice and label that are linked by overlaps; the vote in one does not
    depend on any other.

    Attributes:
        rows: ``[C, n]`` rows of the boxes, best score first (ties: the earlier row).
        overlap: ``[C, n, n]`` pairwise IoU; 0 where it lies below every candidate.
        first: number of the first component; they count on through the buckets.
    """

    rows: NDArray[np.int64]
    overlap: NDArray[np.float64]
    first: int


def make_buckets(
    boxes: Detections, group: NDArray[np.int64], alone: NDArray[np.bool_], lowest_iou: float
) -> list[Bucket]:
    """Part the boxes into components, by size.

    Args:
        boxes: 2D.
        group: ``[N]`` number of case, slice and label.
        alone: ``[N]`` boxes that vote for themselves whatever they overlap.
        lowest_iou: smallest overlap that makes two boxes agree.
    """
    free = np.flatnonzero(~alone)
    pairs = free[overlapping_pairs(boxes.boxes[free], group[free], lowest_iou, inclusive=True)]
    size = len(boxes)
    graph = sparse.coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    number = connected_components(graph, directed=False)[1] if size else np.zeros(0, dtype=np.int64)
    order = np.lexsort((-boxes.scores, number))
    start = np.flatnonzero(np.diff(number[order], prepend=-1))
    count = np.diff(start, append=size)
    place = np.empty(size, dtype=np.int64)  # of a box in its component
    place[order] = np.arange(size) - np.repeat(start, count)
    buckets, first = [], 0
    for n in np.unique(count):
        rows = order[start[count == n][:, None] + np.arange(n)]
        own = np.full(size, -1)
        own[rows] = np.arange(len(rows))[:, None]
        inside = pairs[own[pairs[:, 0]] >= 0]
        overlap = np.zeros((len(rows), n, n))
        at = own[inside[:, 0]], place[inside[:, 0]], place[inside[:, 1]]
        overlap[at] = overlap[at[0], at[2], at[1]] = _iou(boxes, inside)
        overlap[:, np.arange(n), np.arange(n)] = 1
        buckets.append(Bucket(rows, overlap, first))
        first += len(rows)
    return buckets


def _iou(boxes: Detections, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    a, b = boxes.boxes[pairs[:, 0]], boxes.boxes[pairs[:, 1]]
    shared = np.prod(
        np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None), axis=1
    )
    iou: NDArray[np.float64] = shared / (box_volumes(a) + box_volumes(b) - shared)
    return iou


@dataclass(frozen=True)
class Units:
    """Votes to be counted once: a component, the boxes that a filter leaves of it, and who overlaps whom.

    Attributes:
        component: ``[U]`` row in ``bucket.rows``.
        keep: ``[U, n]`` boxes that are left.
        agree: ``[U]`` index of a vote IoU that tells who overlaps whom.
    """

    component: NDArray[np.int64]
    keep: NDArray[np.bool_]
    agree: NDArray[np.int64]


@dataclass(frozen=True)
class UnitIndex:
    """Which unit stands for a component under a filter setting and a vote IoU: ``base + pattern * width + level``.

    Attributes:
        pattern: ``[F, C]`` number of the subset a filter setting leaves.
        width: ``[C]`` number of levels.
        level: ``[C, I]`` number of the distinct graph that a vote IoU makes.
        base: ``[C]`` number of the first unit.
    """

    pattern: NDArray[np.int32]
    width: NDArray[np.int64]
    level: NDArray[np.int64]
    base: NDArray[np.int64]

    @classmethod
    def join(cls, parts: Sequence[UnitIndex], num_filters: int, num_ious: int) -> UnitIndex:
        """All buckets in one."""
        none = UnitIndex(
            np.zeros((num_filters, 0), dtype=np.int32),
            np.zeros(0, dtype=np.int64),
            np.zeros((0, num_ious), dtype=np.int64),
            np.zeros(0, dtype=np.int64),
        )
        parts = [none, *parts]
        return cls(
            np.concatenate([part.pattern for part in parts], axis=1),
            np.concatenate([part.width for part in parts]),
            np.concatenate([part.level for part in parts]),
            np.concatenate([part.base for part in parts]),
        )

    def units(self, filters: slice, components: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the units ``[F', C', I]``."""
        start = self.base[components] + self.pattern[filters][:, components] * self.width[components]
        return start[:, :, None] + self.level[components][None]


def make_units(
    bucket: Bucket, masks: NDArray[np.bool_], ious: NDArray[np.float64], first_unit: int
) -> tuple[Units, UnitIndex]:
    """Every distinct vote in the components of a bucket.

    Args:
        bucket: components.
        masks: ``[F, N]`` boxes that each filter setting keeps.
        ious: ``[I]`` vote IoUs, ascending.
        first_unit: number of the first unit.
    """
    patterns = [_patterns(masks, rows) for rows in _blocks(bucket.rows, len(masks))]
    pattern = np.concatenate([ids for ids, _ in patterns], axis=1)
    num_patterns = pattern.max(axis=0).astype(np.int64) + 1
    keep = np.concatenate([subsets for _, subsets in patterns])
    joined = (bucket.overlap[:, None] >= ious[:, None, None]).sum(axis=(2, 3))
    level = np.cumsum(np.diff(joined, axis=1, prepend=joined[:, :1]) != 0, axis=1)
    width = level[:, -1] + 1
    per_component = num_patterns * width
    base = first_unit + np.cumsum(per_component) - per_component
    component = np.repeat(np.arange(len(bucket.rows)), per_component)
    within = np.arange(len(component)) - np.repeat(base - first_unit, per_component)
    start = np.cumsum(num_patterns) - num_patterns
    subset = start[component] + within // width[component]
    agree = (level[component] < (within % width[component])[:, None]).sum(axis=1)
    return Units(component, keep[subset], agree), UnitIndex(pattern, width, level, base)


def _blocks(rows: NDArray[np.int64], num_filters: int) -> Iterator[NDArray[np.int64]]:
    step = max(1, _BLOCK // (num_filters * rows.shape[1]))
    for begin in range(0, len(rows), step):
        yield rows[begin : begin + step]


def _patterns(
    masks: NDArray[np.bool_], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """For each component the number of the subset that each filter leaves ``[F, C]``; the subsets themselves.

    Subsets of a component are numbered from 0 and stand together, component by component.
    """
    kept = masks[:, rows]
    num_filters, num_components, n = kept.shape
    ids = np.broadcast_to(np.arange(num_components, dtype=np.int64), (num_filters, num_components))
    example = np.zeros(0, dtype=np.int64)
    for begin in range(0, n, _WORD):
        word = kept[:, :, begin : begin + _WORD] @ (1 << np.arange(min(_WORD, n - begin), dtype=np.int64))
        _, example, ids = np.unique(ids * (1 << _WORD) + word, return_index=True, return_inverse=True)
        ids = ids.reshape(num_filters, num_components)
    of_component = example % num_components
    number = np.arange(len(example)) - np.searchsorted(of_component, of_component)
    return number[ids].astype(np.int32), kept[example // num_components, of_component]
