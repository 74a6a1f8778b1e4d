"""Which boxes overlap each other, without comparing every box with every other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.box import Boxes, box_volumes

_CHUNK = 1 << 20  # candidate pairs looked at together: about 100 MB
_MAX_STRIPS = 256
_MANY = 4  # expected candidates per box from which on strips are worth their making

Rows = NDArray[np.int64]


def overlapping_pairs(boxes: Boxes, group: Rows, iou: float, *, inclusive: bool) -> Rows:
    """Pairs of boxes of one group that overlap enough.

    A sweep along the axis on which boxes are shortest compared with the room they have: boxes are sorted by their lower
    edge, and a box is compared only with those that begin before it ends. Where that leaves many, the boxes are swept
    in strips along the next axis.

    What is swept are not the boxes but their cores. IoU >= t needs an IoU >= t on every axis alone, hence, for sides a
    and b, centres no farther apart than (a + b) / 2 * (1 - t) / (1 + t): boxes shrunk by the last factor must touch.

    Args:
        boxes: ``[N, 2 * dim]``.
        group: ``[N]`` numbers; boxes of different groups never meet.
        iou: overlap from which on a pair counts; boxes that do not touch never do.
        inclusive: whether an IoU of exactly ``iou`` is enough.

    Returns:
        ``[P, 2]`` rows, the smaller one first, in ascending order.
    """
    if len(boxes) == 0:
        return np.zeros((0, 2), dtype=np.int64)
    edges = np.ascontiguousarray(boxes.T)
    cores = _cores(edges, iou)
    volumes = box_volumes(boxes)
    found = []
    for first, second in _candidates(cores, group):
        close = _close(edges, cores, volumes, first, second, iou, inclusive)
        found.append(np.stack([first[close], second[close]], axis=1))
    pairs = np.sort(np.concatenate([np.zeros((0, 2), dtype=np.int64), *found]), axis=1)
    return pairs[np.argsort(pairs[:, 0] * len(boxes) + pairs[:, 1])]


def _cores(edges: NDArray[np.float64], iou: float) -> NDArray[np.float64]:
    """Edges of the shrunk boxes, a hair wider than they need to be, against rounding."""
    lower, upper = np.split(edges, 2)
    factor = (1 - min(max(iou, 0.0), 1.0)) / (1 + min(max(iou, 0.0), 1.0))
    hair = 1e-9 * (1 + float(np.abs(edges).max()))
    half = np.maximum(upper - lower, 0) / 2 * factor + hair
    centre = (lower + upper) / 2
    return np.concatenate([centre - half, centre + half])


def _candidates(edges: NDArray[np.float64], group: Rows) -> Iterator[tuple[Rows, Rows]]:
    """Every pair that overlaps, once, and some that do not, in portions."""
    dim = len(edges) // 2
    first_axis, second_axis = _axes(edges)
    groups = len(np.unique(group))
    if _share(edges, first_axis) * edges.shape[1] / groups <= _MANY:
        yield from _self_pairs(*_ranked(edges, first_axis, group))
        return
    lower, upper = edges[second_axis], edges[dim + second_axis]
    width = max(2 * float(np.mean(upper - lower)), float(upper.max() - lower.min()) / _MAX_STRIPS)
    begin, end = (np.floor((side - lower.min()) / width).astype(np.int64) for side in (lower, upper))
    copies = end - begin + 1
    row = np.repeat(np.arange(len(group)), copies)
    strip = begin[row] + np.arange(len(row)) - np.repeat(np.cumsum(copies) - copies, copies)
    striped = group[row] * (int(strip.max()) + 1) + strip
    for first, second in _self_pairs(*_ranked(edges[:, row], first_axis, striped)):
        # a pair shares several strips: it counts in the one where the later of the two begins
        a, b = row[first], row[second]
        once = np.maximum(begin[a], begin[b]) == strip[first]
        yield a[once], b[once]


def _axes(edges: NDArray[np.float64]) -> list[int]:
    """Axes, the one that parts the boxes best first."""
    dim = len(edges) // 2
    return sorted(range(dim), key=lambda axis: _share(edges, axis))[:2]


def _share(edges: NDArray[np.float64], axis: int) -> float:
    """Mean side length on an axis, as a share of the room between the outermost edges."""
    lower, upper = edges[axis], edges[len(edges) // 2 + axis]
    room = float(upper.max() - lower.min()) if len(lower) else 0.0
    return float(np.mean(upper - lower)) / room if room > 0 else 1.0


def _ranked(edges: NDArray[np.float64], axis: int, group: Rows) -> tuple[NDArray[Any], NDArray[Any]]:
    """Edges along an axis such that those of different groups never mix: as they are, or as exact integers."""
    lower, upper = edges[axis], edges[len(edges) // 2 + axis]
    if len(group) == 0 or group.min() == group.max():
        return lower, upper
    distinct, rank = np.unique(np.concatenate([lower, upper]), return_inverse=True)
    low, high = np.split(rank.reshape(-1), 2)
    base = group * np.int64(len(distinct))
    return base + low, base + high


def _self_pairs(lower: NDArray[Any], upper: NDArray[Any]) -> Iterator[tuple[Rows, Rows]]:
    """Rows of the pairs that overlap along an axis, in portions."""
    order = np.argsort(lower, kind="stable")
    after = np.arange(1, len(lower) + 1)
    count = np.maximum(np.searchsorted(lower[order], upper[order]) - after, 0)
    for rows, places in _portions(after, count):
        yield order[rows], order[places]


def _portions(begin: Rows, count: Rows) -> Iterator[tuple[Rows, Rows]]:
    """(row, begin[row] .. begin[row] + count[row] - 1) of every row, in portions."""
    ends = np.cumsum(count)
    first = 0
    while first < len(ends):
        done = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _CHUNK, side="right")))
        own = count[first:last]
        row = np.repeat(np.arange(first, last), own)
        shift = begin[first:last] - (np.cumsum(own) - own)
        yield row, np.arange(len(row)) + shift[row - first]
        first = last


def _close(
    edges: NDArray[np.float64],
    cores: NDArray[np.float64],
    volumes: NDArray[np.float64],
    a: Rows,
    b: Rows,
    iou: float,
    inclusive: bool,
) -> Rows:
    """Which of the pairs overlap enough; the first axis on which the cores do not touch ends the work on a pair."""
    dim = len(edges) // 2
    keep = np.arange(len(a))
    for axis in range(dim):
        low, high = cores[axis], cores[dim + axis]
        inside = np.flatnonzero((low[a] < high[b]) & (low[b] < high[a]))
        keep, a, b = keep[inside], a[inside], b[inside]
    overlap = np.ones(len(a))
    for axis in range(dim):
        low, high = edges[axis], edges[dim + axis]
        overlap *= np.clip(np.minimum(high[a], high[b]) - np.maximum(low[a], low[b]), 0, None)
    # as core.boxes.pairwise_iou computes it, to the last bit
    union = volumes[a] + volumes[b] - overlap
    ratio = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return keep[(overlap > 0) & (ratio >= iou if inclusive else ratio > iou)]
