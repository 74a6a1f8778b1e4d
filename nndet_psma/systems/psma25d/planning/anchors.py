"""Anchor sizes and aspect ratios that fit the lesions' slice boxes, as torchvision will place them.

nnDetection fits anchors to 3D boxes by their centred overlap. Here boxes are 2D, and two things that centred overlap
does not see are modelled, because for lesions of a few pixels they decide: torchvision rounds half the sides of an
anchor to whole pixels, and anchors stand on a grid with the stride of their level. All sides are detector pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_Anchors = tuple[list[float], list[float]]  # sizes, ratios
Levels = Sequence[Sequence[float]]

STRIDES = (4, 8, 16, 32)
DEFAULT_SIZES = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
DEFAULT_RATIOS = (0.5, 1.0, 2.0)
MIN_SIZE = 4.0
_DEFAULT_STRIDES = (*STRIDES, 64)
_PERIOD = 64.0  # the anchors of all levels repeat after the coarsest stride
_MAX_BOXES, _FIT_BOXES = 2000, 300
_PLACEMENTS, _FIT_PLACEMENTS = 64, 32
_SWEEPS = 20
_STEPS = (0.6, 0.75, 0.85, 0.93, 0.97, 1.03, 1.07, 1.18, 1.33, 1.67)
_RATIO_STARTS = {
    1: ([0.5], [0.2], [0.8]),
    2: ((0.25, 0.75), (0.1, 0.5), (0.5, 0.9)),
    3: ((0.1, 0.5, 0.9), (0.3, 0.5, 0.7)),
}
_USEFUL_SHARE = 0.05


class _Rule(NamedTuple):
    """Limits, decimals and least relative distance of sizes or ratios."""

    digits: int
    low: float
    high: float
    gap: float

    def allows(self, value: float, others: Sequence[float]) -> bool:
        return self.low <= value <= self.high and all(abs(value - o) > self.gap * o for o in others)


# closer sizes would only fit the very lesions of the training set: augmentation resizes by more
_SIZES, _RATIOS = _Rule(1, MIN_SIZE, 1e5, 0.08), _Rule(2, 0.2, 5.0, 0.0)


@dataclass(frozen=True)
class AnchorScore:
    """How well anchors fit boxes.

    Attributes:
        mean_best_iou: mean over boxes of the IoU with the best anchor of the same centre.
        recall_50: share of boxes where it is at least 0.5.
        placed_mean_best_iou: the same over boxes at random places of the anchor grids.
        placed_recall_50: share of boxes and places where the best IoU is at least 0.5.
    """

    mean_best_iou: float
    recall_50: float
    placed_mean_best_iou: float
    placed_recall_50: float

    @property
    def value(self) -> float:
        """What is maximised."""
        return self.placed_mean_best_iou + self.placed_recall_50


@dataclass(frozen=True)
class AnchorFit(AnchorScore):
    """Anchors (sizes per level from stride 4 on, ratios height / width, all ascending), their score, and the score of
    torchvision's default: sizes 32 to 512 with ratios 0.5, 1, 2 on five levels."""

    sizes: list[list[float]]
    ratios: list[float]
    default: AnchorScore


def fit_anchors(
    heights: Floats, widths: Floats, levels: int, sizes_per_level: int = 2, ratios: int = 3
) -> AnchorFit:
    """Anchors with the largest mean best IoU and recall at 0.5, summed, for boxes at random places.

    The placed and not the centred figures are maximised: the RPN labels real anchors, which lie up to half a stride
    beside a lesion, so only they say which lesions get positive anchors, and only they prefer small sizes on fine
    levels.
    The mean IoU alone would give up the smallest lesions for a closer fit of the others; the recall holds them.

    Deterministic: one size or ratio is moved at a time while that helps, from several starts. Two are the quantile rule
    and torchvision's default (where its five sizes and three ratios have room); the result's mean IoU is never lower.

    Args:
        heights: ``[N]`` of slice boxes; of more than 2000, evenly chosen ones by area are used.
        widths: ``[N]``.
        levels: 1 to 4, strides 4, 8, 16, 32.
        sizes_per_level: equal on all levels, as the RPN head is shared.
        ratios: 1 to 3.

    Raises:
        ValueError: no boxes, sides that are not positive and finite, or counts out of range.
    """
    _check(heights, widths, levels, sizes_per_level, ratios)
    heights, widths = _thinned(heights, widths, _MAX_BOXES)
    search = _Search(*_thinned(heights, widths, _FIT_BOXES), STRIDES[:levels], sizes_per_level)
    found = []
    for start in _starts(heights, widths, levels * sizes_per_level, ratios):
        found += [start, search.climb(*start)]
    layouts = [(np.reshape(sizes, (levels, sizes_per_level)).tolist(), list(r)) for sizes, r in found]
    scores = [score_anchors(heights, widths, sizes, r, STRIDES) for sizes, r in layouts]
    # the first start is the quantile rule; the last, before its climb, torchvision's default where that has room
    references = (0, -2) if levels * sizes_per_level >= 5 and ratios == 3 else (0,)
    floor = max(scores[i].placed_mean_best_iou for i in references)
    allowed = [i for i, score in enumerate(scores) if score.placed_mean_best_iou >= floor]
    best = max(allowed, key=lambda i: scores[i].value)
    default = score_anchors(heights, widths, DEFAULT_SIZES, DEFAULT_RATIOS, _DEFAULT_STRIDES)
    sizes, chosen = layouts[best]
    return AnchorFit(**vars(scores[best]), sizes=sizes, ratios=chosen, default=default)


def score_anchors(
    heights: Floats, widths: Floats, sizes: Levels, ratios: Sequence[float], strides: Sequence[int] = STRIDES
) -> AnchorScore:
    """Score of given anchors (``sizes`` per level) on boxes ``[N]``."""
    centred = np.zeros((len(heights), 1))
    placed = np.zeros((len(heights), _PLACEMENTS))
    for level, stride in zip(sizes, strides, strict=False):
        for anchor in zip(*anchor_sides(level, ratios), strict=True):
            np.maximum(centred, placed_iou(heights, widths, anchor, np.zeros((1, 2))), out=centred)
            offsets = grid_offsets(stride, _PLACEMENTS)
            np.maximum(placed, placed_iou(heights, widths, anchor, offsets), out=placed)
    means = [float(v) for best in (centred, placed) for v in (best.mean(), (best >= 0.5).mean())]
    return AnchorScore(*means)


def anchor_sides(sizes: Sequence[float], ratios: Sequence[float]) -> tuple[Floats, Floats]:
    """Heights and widths ``[len(ratios) * len(sizes)]`` of torchvision's anchors.

    ``torchvision.models.detection.anchor_utils.AnchorGenerator`` rounds the half sides (half to even).
    """
    root = np.sqrt(np.asarray(ratios, dtype=np.float64))[:, None]
    size = np.asarray(sizes, dtype=np.float64)[None]
    return 2 * np.round(size * root / 2).ravel(), 2 * np.round(size / root / 2).ravel()


def grid_offsets(stride: float, count: int) -> Floats:
    """Distances ``[count, 2]`` (y, x) of box centres to the nearest grid point of a level.

    The centres are the same points of the coarsest cell for every level (an additive recurrence with the plastic
    number, evenly spread at every scale), so that the best anchor over levels is found per place.
    """
    plastic = 1.32471795724474602596
    steps = np.arange(1, count + 1)[:, None] * np.array([1 / plastic, 1 / plastic**2])
    places = np.mod(0.5 + steps, 1.0) * _PERIOD
    offsets: Floats = np.abs(np.mod(places + stride / 2, stride) - stride / 2)
    return offsets


def placed_iou(heights: Floats, widths: Floats, anchor: tuple[float, float], offsets: Floats) -> Floats:
    """IoU ``[N, P]`` of boxes ``[N]`` with an anchor (height, width) whose centre is ``offsets`` ``[P, 2]`` away.

    Two intervals of lengths a and b with centres d apart share ``min(a, b, (a + b) / 2 - d)``.
    """
    shared = np.ones((len(heights), len(offsets)))
    for axis, sides in enumerate((heights, widths)):
        apart = (sides[:, None] + anchor[axis]) / 2 - offsets[None, :, axis]
        shared *= np.clip(np.minimum(apart, np.minimum(sides, anchor[axis])[:, None]), 0, None)
    union = (heights * widths)[:, None] + anchor[0] * anchor[1] - shared
    return shared / union


def choose_levels(heights: Floats, widths: Floats) -> list[int]:
    """ResNet layers (1 = stride 4) on whose grid at least 5 % of the boxes are met with a mean placed IoU of 0.5.

    The anchor is taken to have the box's own shape, so only the grid counts; for squares that asks for a side of
    about 1.4 strides at the 95 % quantile (``rules.pyramid_levels`` asks for 1.5). Coarser levels would
    learn from anchors that miss their lesion. Two levels at least, for context. ValueError as :func:`fit_anchors`.
    """
    _check(heights, widths, 1, 1, 1)
    count = 0
    for stride in STRIDES:
        offsets = grid_offsets(stride, _PLACEMENTS)
        met = [
            placed_iou(h[None], w[None], (h, w), offsets).mean() >= 0.5
            for h, w in zip(*_thinned(heights, widths, _MAX_BOXES), strict=True)
        ]
        count += float(np.mean(met)) >= _USEFUL_SHARE
    return list(range(1, 1 + max(2, count)))


class _Search:
    """Moves one size or ratio at a time while the value grows; the few shapes of rounded anchors are computed once."""

    def __init__(self, heights: Floats, widths: Floats, strides: Sequence[int], per_level: int) -> None:
        self.heights, self.widths, self.strides, self.per_level = heights, widths, strides, per_level
        self.offsets = {stride: grid_offsets(stride, _FIT_PLACEMENTS) for stride in strides}
        self.known: dict[tuple[float, float, int], NDArray[np.float32]] = {}
        sides = np.sqrt(heights * widths)
        low, high = np.quantile(sides, [0.01, 0.99])
        self.size_stops = np.geomspace(max(low, MIN_SIZE), max(high, MIN_SIZE), 16).tolist()
        self.ratio_stops = np.quantile(heights / widths, np.linspace(0.05, 0.95, 7)).tolist()

    def climb(self, sizes: list[float], ratios: list[float]) -> _Anchors:
        """The local optimum reached from a start."""
        best = self._value(sizes, ratios)
        for _ in range(_SWEEPS):
            before = best
            for index in range(len(sizes)):
                for moved in _moves(sizes, index, self.size_stops, _SIZES):
                    if (value := self._value(moved, ratios)) > best + 1e-6:
                        best, sizes = value, moved
            for index in range(len(ratios)):
                for moved in _moves(ratios, index, self.ratio_stops, _RATIOS):
                    if (value := self._value(sizes, moved)) > best + 1e-6:
                        best, ratios = value, moved
            if best - before < 1e-4:
                break
        return sizes, ratios

    def _value(self, sizes: Sequence[float], ratios: Sequence[float]) -> float:
        best: NDArray[np.float32] | None = None
        for level, stride in enumerate(self.strides):
            part = sizes[level * self.per_level : (level + 1) * self.per_level]
            for height, width in zip(*anchor_sides(part, ratios), strict=True):
                iou = self._iou(float(height), float(width), stride)
                best = iou.copy() if best is None else np.maximum(best, iou, out=best)
        return 0.0 if best is None else float(best.mean() + (best >= 0.5).mean())

    def _iou(self, height: float, width: float, stride: int) -> NDArray[np.float32]:
        key = (height, width, stride)
        if key not in self.known:
            iou = placed_iou(self.heights, self.widths, (height, width), self.offsets[stride])
            self.known[key] = iou.astype(np.float32)
        return self.known[key]


def _moves(values: list[float], index: int, stops: list[float], rule: _Rule) -> list[list[float]]:
    """``values`` with one of them scaled or put elsewhere, ascending and kept apart."""
    rest = values[:index] + values[index + 1 :]
    wanted = {round(value, rule.digits) for value in [*(values[index] * step for step in _STEPS), *stops]}
    return [sorted([*rest, value]) for value in sorted(wanted) if rule.allows(value, rest)]


def _starts(heights: Floats, widths: Floats, count: int, ratios: int) -> list[_Anchors]:
    sides = np.sqrt(heights * widths)
    shapes = heights / widths
    low = max(float(np.quantile(sides, 0.05)), MIN_SIZE)
    high = max(float(np.quantile(sides, 0.95)), low * 1.25 ** (count - 1))
    spread = np.geomspace(low, high, count).tolist()
    even = np.quantile(sides, (np.arange(count) + 0.5) / count).tolist()
    wide = np.geomspace(max(sides.min(), MIN_SIZE), max(sides.max(), MIN_SIZE), count).tolist()
    starts = []
    for quantiles in _RATIO_STARTS[ratios]:
        own = _distinct(np.quantile(shapes, quantiles).tolist(), ratios, _RATIOS)
        starts += [(_distinct(sizes, count, _SIZES), own) for sizes in (spread, even, wide)]
    if count >= 5 and ratios == 3:
        default = [size for (size,) in DEFAULT_SIZES]
        between = [
            default[0] * 2 ** (i + 0.5) for i in range(count)
        ]  # a smaller one would push up the others
        starts.append((_distinct([*default, *between], count, _SIZES), list(DEFAULT_RATIOS)))
    return starts


def _distinct(values: Sequence[float], count: int, rule: _Rule) -> list[float]:
    """The first ``count`` allowed values, rounded, ascending; missing ones are put in steps of 15 % around them."""
    found: list[float] = []
    steps = [sign * i for i in range(1, 20 * count) for sign in (1, -1)]
    for value in [*values, *(values[0] * 1.15**step for step in steps)]:
        rounded = round(min(max(value, rule.low), rule.high), rule.digits)
        if len(found) < count and rule.allows(rounded, found):
            found.append(rounded)
    return sorted(found)


def _thinned(heights: Floats, widths: Floats, most: int) -> tuple[Floats, Floats]:
    """At most ``most`` boxes, evenly spaced in the order of area."""
    if len(heights) <= most:
        return heights, widths
    order = np.lexsort((heights, heights * widths))
    kept = order[np.floor((np.arange(most) + 0.5) * len(order) / most).astype(int)]
    return heights[kept], widths[kept]


def _check(heights: Floats, widths: Floats, levels: int, sizes_per_level: int, ratios: int) -> None:
    sides = np.concatenate([heights, widths])
    if len(heights) == 0 or len(heights) != len(widths):
        raise ValueError(f"anchors need boxes: {len(heights)} heights, {len(widths)} widths")
    if not (np.isfinite(sides).all() and (sides > 0).all()):
        raise ValueError("box sides must be positive and finite")
    if not (1 <= levels <= len(STRIDES) and sizes_per_level >= 1 and 1 <= ratios <= 3):
        found = f"{levels}, {sizes_per_level}, {ratios}"
        raise ValueError(f"1 to 4 levels, at least 1 size and 1 to 3 ratios, found {found}")
