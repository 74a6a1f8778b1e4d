"""Shapes of 3D anchors that fit the lesions, as they will stand on the grids of their levels.

nnDetection chooses sizes along each axis that overlap centred lesions best and doubles them from level to level. Here
every level has its own shapes, and the overlap is that with an anchor at the place where the grid puts it: for lesions
of a few voxels half a stride decides. All extents are voxels (z, y, x).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Shape = tuple[float, float, float]
Steps = tuple[int, int, int]

SHAPES_PER_LEVEL = 3
STEP = 0.5
"""Extents are multiples of half a voxel, one at least."""
_MAX_LESIONS, _FIT_LESIONS = 2000, 200
_PLACEMENTS, _FIT_PLACEMENTS = 64, 16
_PERIOD = 32.0  # the anchors of all levels repeat after the coarsest stride
_SWEEPS = 12
_FACTORS = (0.6, 0.8, 0.9, 1.1, 1.25, 1.67)
_LEAST_GAIN = 1e-5


@dataclass(frozen=True)
class PatchAnchorScore:
    """How well anchors fit lesions.

    Attributes:
        mean_best_iou: mean over lesions of the IoU with the best anchor of the same centre.
        recall_50: share of lesions where it is at least 0.5.
        placed_mean_best_iou: the same over lesions at random places of the grids; what is maximised.
        placed_recall_30: share of lesions and places where the best IoU is at least 0.3.
    """

    mean_best_iou: float
    recall_50: float
    placed_mean_best_iou: float
    placed_recall_30: float


@dataclass(frozen=True)
class PatchAnchorFit:
    """Shapes per level, smallest volume first, their score, and that of nnDetection's kind of sizes."""

    shapes: list[list[Shape]]
    score: PatchAnchorScore
    doubled: PatchAnchorScore


def fit_patch_anchors(
    lesions: Floats, strides: Sequence[Steps], per_level: int = SHAPES_PER_LEVEL
) -> PatchAnchorFit:
    """Anchors with the largest mean best IoU for lesions at random places.

    Deterministic: from shapes of even volume quantiles, and from nnDetection's kind (:func:`doubled_shapes`), one
    extent is moved at a time while that helps; the better end is taken, so that the result is never worse than either
    start.

    Args:
        lesions: extents ``[M, 3]``; of more than 2000 evenly chosen ones by volume are used.
        strides: of the levels, the finest first.
        per_level: shapes of every level; equal, as the heads are shared.

    Raises:
        ValueError: no lesions, extents that are not positive and finite, no level, or no shape.
    """
    _check(lesions, strides, per_level)
    lesions = _thinned(lesions, _MAX_LESIONS)
    doubled = doubled_shapes(lesions, strides, per_level)
    search = _Search(_thinned(lesions, _FIT_LESIONS), strides, per_level)
    starts = [_flat(doubled), quantile_shapes(lesions, len(strides) * per_level)]
    found = [_levels(shapes, per_level) for start in starts for shapes in (start, search.climb(start))]
    scores = [score_patch_anchors(lesions, shapes, strides) for shapes in found]
    best = max(range(len(found)), key=lambda i: scores[i].placed_mean_best_iou)
    return PatchAnchorFit(found[best], scores[best], scores[0])


def score_patch_anchors(
    lesions: Floats, shapes: Sequence[Sequence[Shape]], strides: Sequence[Steps]
) -> PatchAnchorScore:
    """Score of given anchors (shapes per level) on lesions ``[M, 3]``."""
    centred = np.zeros((len(lesions), 1))
    placed = np.zeros((len(lesions), _PLACEMENTS))
    for level, stride in zip(shapes, strides, strict=True):
        offsets = grid_offsets_3d(stride, _PLACEMENTS)
        for shape in level:
            np.maximum(centred, placed_iou_3d(lesions, shape, np.zeros((1, 3))), out=centred)
            np.maximum(placed, placed_iou_3d(lesions, shape, offsets), out=placed)
    return PatchAnchorScore(
        float(centred.mean()),
        float((centred >= 0.5).mean()),
        float(placed.mean()),
        float((placed >= 0.3).mean()),
    )


def grid_offsets_3d(stride: Steps, count: int) -> Floats:
    """Distances ``[count, 3]`` of lesion centres to the nearest grid point of a level, along each axis.

    The centres are the same points for every level (an additive recurrence whose steps are the powers of the root of
    x^4 = x + 1, evenly spread at every scale), so that the best anchor over levels is found per place.
    """
    root = 1.22074408460575947536
    steps = np.arange(1, count + 1)[:, None] * np.array([1 / root, 1 / root**2, 1 / root**3])
    places = np.mod(0.5 + steps, 1.0) * _PERIOD
    cell = np.array(stride, dtype=np.float64)
    offsets: Floats = np.abs(np.mod(places + cell / 2, cell) - cell / 2)
    return offsets


def placed_iou_3d(lesions: Floats, shape: Sequence[float], offsets: Floats) -> Floats:
    """IoU ``[M, P]`` of boxes ``[M, 3]`` with an anchor whose centre is ``offsets`` ``[P, 3]`` away.

    Two intervals of lengths a and b with centres d apart share ``min(a, b, (a + b) / 2 - d)``.
    """
    shared = np.ones((len(lesions), len(offsets)))
    for axis in range(3):
        sides = lesions[:, axis, None]
        apart = (sides + shape[axis]) / 2 - offsets[None, :, axis]
        shared *= np.clip(np.minimum(apart, np.minimum(sides, shape[axis])), 0, None)
    iou: Floats = shared / (lesions.prod(axis=1)[:, None] + float(np.prod(shape)) - shared)
    return iou


def quantile_shapes(lesions: Floats, count: int) -> list[Shape]:
    """Median shapes of ``count`` equally large groups of lesions, by volume ascending."""
    ordered = lesions[np.argsort(lesions.prod(axis=1), kind="stable")]
    edges = np.linspace(0, len(ordered), count + 1)
    groups = [ordered[int(a) : max(int(np.ceil(b)), int(a) + 1)] for a, b in pairwise(edges)]
    return [_whole(np.median(group, axis=0)) for group in groups]


def doubled_shapes(lesions: Floats, strides: Sequence[Steps], per_level: int) -> list[list[Shape]]:
    """nnDetection's kind of anchors: sizes fitted on the finest level grow with the stride from level to level."""
    base = np.array(quantile_shapes(lesions, per_level))
    growth = [np.array(stride) / np.array(strides[0]) for stride in strides]
    return [[_whole(shape * factor) for shape in base] for factor in growth]


class _Search:
    """Moves one extent at a time while the mean best IoU grows."""

    def __init__(self, lesions: Floats, strides: Sequence[Steps], per_level: int) -> None:
        self.lesions = lesions
        self.per_level = per_level
        self.offsets = [grid_offsets_3d(stride, _FIT_PLACEMENTS) for stride in strides]
        self.stops = [np.unique(np.quantile(lesions[:, a], [0.05, 0.25, 0.5, 0.75, 0.95])) for a in range(3)]
        self.known: dict[tuple[Shape, int], NDArray[np.float32]] = {}

    def climb(self, shapes: list[Shape]) -> list[Shape]:
        """The local optimum reached from a start."""
        shapes, best = list(shapes), self._value(self._overlaps(shapes))
        for _ in range(_SWEEPS):
            before = best
            for index in range(len(shapes)):
                best = self._improve(shapes, index, best)
            if best - before < _LEAST_GAIN:
                break
        return shapes

    def _improve(self, shapes: list[Shape], index: int, best: float) -> float:
        """Replace one shape by better ones; returns the new value."""
        overlaps = self._overlaps(shapes)
        rest = np.max([*overlaps[:index], *overlaps[index + 1 :]], axis=0) if len(shapes) > 1 else None
        for axis in range(3):
            for moved in self._moves(shapes[index], axis):
                own = self._overlap(moved, index)
                value = float((own if rest is None else np.maximum(rest, own)).mean())
                if value > best + _LEAST_GAIN:
                    best, shapes[index] = value, moved
        return best

    def _moves(self, shape: Shape, axis: int) -> list[Shape]:
        wanted = {
            *(shape[axis] * f for f in _FACTORS),
            shape[axis] - STEP,
            shape[axis] + STEP,
            *self.stops[axis],
        }
        moved = []
        for value in sorted(wanted):
            changed = list(shape)
            changed[axis] = value
            moved.append(_whole(np.array(changed)))
        return moved

    def _overlaps(self, shapes: Sequence[Shape]) -> list[NDArray[np.float32]]:
        return [self._overlap(shape, index) for index, shape in enumerate(shapes)]

    def _overlap(self, shape: Shape, index: int) -> NDArray[np.float32]:
        """IoU ``[M, P]``; the few shapes are computed once."""
        key = (shape, index // self.per_level)
        if key not in self.known:
            self.known[key] = placed_iou_3d(self.lesions, shape, self.offsets[key[1]]).astype(np.float32)
        return self.known[key]

    def _value(self, overlaps: Sequence[NDArray[np.float32]]) -> float:
        return float(np.max(overlaps, axis=0).mean())


def _whole(shape: Floats) -> Shape:
    """Multiples of half a voxel, at least one voxel."""
    z, y, x = (max(1.0, round(float(v) / STEP) * STEP) for v in shape)
    return z, y, x


def _flat(levels: Sequence[Sequence[Shape]]) -> list[Shape]:
    return [shape for level in levels for shape in level]


def _levels(shapes: Sequence[Shape], per_level: int) -> list[list[Shape]]:
    """Shapes in their levels, each ordered by volume."""
    cut = [shapes[start : start + per_level] for start in range(0, len(shapes), per_level)]
    return [sorted(level, key=lambda shape: (float(np.prod(shape)), shape)) for level in cut]


def _thinned(lesions: Floats, most: int) -> Floats:
    """At most ``most`` lesions, evenly spaced in the order of volume; the order of the input does not matter."""
    order = np.lexsort((*lesions.T, lesions.prod(axis=1)))
    kept = np.floor((np.arange(min(most, len(order))) + 0.5) * len(order) / min(most, len(order))).astype(int)
    thinned: Floats = lesions[order[kept]]
    return thinned


def _check(lesions: Floats, strides: Sequence[Steps], per_level: int) -> None:
    if lesions.ndim != 2 or lesions.shape[1] != 3 or len(lesions) == 0:
        raise ValueError(f"anchors need lesions [M, 3], found {lesions.shape}")
    if not (np.isfinite(lesions).all() and (lesions > 0).all()):
        raise ValueError("extents of lesions must be positive and finite")
    if not strides or per_level < 1:
        raise ValueError(f"at least one level and one shape, found {len(strides)} and {per_level}")
