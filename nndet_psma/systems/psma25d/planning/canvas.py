"""Room for rotation: how much of the search regions stays in view, the canvas that keeps it, the angle it bears."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.detector_plan import Augmentation
from nndet_psma.core.errors import UserError
from nndet_psma.planners import rules
from nndet_psma.planners.ledger import Ledger
from nndet_psma.systems.psma25d.options import SliceOptions
from nndet_psma.systems.psma25d.planning.memory import NetworkChoice
from nndet_psma.systems.psma25d.planning.settled import found

KEPT = 0.995
"""Share of a region that rotation must leave in view: what is lost weighs no more than the drawing of a contour."""

_ROUNDNESS = 3.5
"""Exponent of the superellipse that stands for a region in its box: 2 is an ellipse. 3.5 is the least, in steps of a
half, with which what is grown or bounded here keeps ``KEPT`` of the search region of a real pelvis at every angle
(``tests/systems/psma25d/planning/test_canvas.py``)."""

_POINTS, _ANGLES = 41, 31
Sides = NDArray[np.float64]


@dataclass(frozen=True)
class Canvas:
    """Training images of a plan.

    Attributes:
        search: (height, width) of a search-region stage, detector pixels.
        body: the same of whole slices.
        choice: network and batch that they leave room for.
        rotation_degrees: largest rotation.
    """

    search: tuple[int, int]
    body: tuple[int, int]
    choice: NetworkChoice
    rotation_degrees: float


@dataclass(frozen=True)
class Views:
    """Boxes ``[N, 2]`` (height, width) of all search regions and bodies in detector pixels, and the coarsest stride."""

    search: Sides
    body: Sides
    divisor: int


def choose_canvas(
    ledger: Ledger,
    options: SliceOptions,
    augmentation: Augmentation,
    tight: Canvas,
    views: Views,
    max_pixels: int,
    fitting: Callable[[tuple[int, int], tuple[int, int]], NetworkChoice],
) -> Canvas:
    """Training images in which the search regions stay in view however they are turned.

    They grow where that costs neither depth nor batch of the network and no more than ``max_pixels``; otherwise the
    angle is bounded. ``plan_cfg.canvas`` "grow" holds turned bodies, too, and lets the batch give way.

    Args:
        ledger: where the decision is noted, unless ``tight`` is kept.
        options: of the user.
        augmentation: wished.
        tight: what holds the regions as they lie.
        views: what is to be seen.
        max_pixels: of a search-region image.
        fitting: network for images of search regions and bodies of these sizes.
    """
    wish, rule, source = found(options, "canvas", "auto")
    degrees, largest = augmentation.rotation_degrees, augmentation.scale[1]
    kept = kept_share(views.search, tight.search, degrees)
    if degrees == 0 or (kept >= KEPT and wish != "grow"):
        return tight
    key, size = "augmentation.rotation_degrees", "{} x {}".format(*tight.search)
    evidence = (
        f"images of {size} would keep {kept:.1%} of the search regions turned by up to {degrees:g} degrees"
    )
    if wish != "bound":
        search = grown_canvas(views.search, tight.search, degrees, largest, views.divisor)
        body = tight.body
        if wish == "grow":
            body = grown_canvas(views.body, tight.body, degrees, largest, views.divisor)
        choice = _room(fitting, search, body)
        if choice is not None and (
            wish == "grow" or _costs_nothing(tight.choice, choice, search, max_pixels)
        ):
            text = "canvas.grown_canvas: images hold what rotation and resizing show"
            evidence = f"{evidence}; grown to {search[0]} x {search[1]}"
            ledger.note(key, rule or text, f"{source}; {evidence}" if source else evidence)
            return Canvas(search, body, choice, degrees)
    bound = bounded_angle(views.search, tight.search, degrees)
    text = f"canvas.bounded_angle: {KEPT:.1%} of the search regions stay in view"
    ledger.note(
        key, text, f"{evidence}; there is no room to grow" if wish != "bound" else f"{rule}: {evidence}"
    )
    return replace(tight, rotation_degrees=bound)


def _room(
    fitting: Callable[[tuple[int, int], tuple[int, int]], NetworkChoice],
    search: tuple[int, int],
    body: tuple[int, int],
) -> NetworkChoice | None:
    """The network that holds whole images of these sizes; None without one."""
    try:
        choice = fitting(search, body)
    except UserError:
        return None
    return choice if choice.pixels >= max(math.prod(search), math.prod(body)) else None


def _costs_nothing(before: NetworkChoice, after: NetworkChoice, search: tuple[int, int], most: int) -> bool:
    same = (after.network, after.batch_size) == (before.network, before.batch_size)
    return same and math.prod(search) <= most


def kept_share(regions: Sides, canvas: tuple[int, int], degrees: float) -> float:
    """Mean share of the regions seen when they are turned about their centre by up to ``degrees`` either way.

    Args:
        regions: ``[N, 2]`` height and width of their boxes, detector pixels.
        canvas: (height, width) of the detector's image.
        degrees: largest angle; all angles are alike.
    """
    return float(np.mean([_kept(height, width, canvas, degrees) for height, width in regions]))


def grown_canvas(
    regions: Sides, canvas: tuple[int, int], degrees: float, scale: float, divisor: int
) -> tuple[int, int]:
    """The smallest canvas, ``canvas`` included, that holds all of the regions enlarged by ``scale``.

    Sides are multiples of ``divisor``.
    """
    turned = (
        np.array([_turned_extent(height, width, degrees) for height, width in regions]).max(axis=0) * scale
    )
    height, width = np.maximum(canvas, turned).tolist()
    return rules.input_size((height, width), 1.0, divisor)


def bounded_angle(regions: Sides, canvas: tuple[int, int], degrees: float) -> float:
    """The largest angle up to ``degrees``, in whole degrees, at which ``canvas`` keeps the share ``KEPT``."""
    angles = range(1, min(int(degrees), 90) + 1)  # a region turned farther is seen as its mirror image
    return float(bisect_left(angles, True, key=lambda angle: kept_share(regions, canvas, angle) < KEPT))


def _kept(height: float, width: float, canvas: tuple[int, int], degrees: float) -> float:
    if np.hypot(height, width) <= min(canvas):
        return 1.0
    y, x = _points().T * [[height / 2], [width / 2]]
    angles = np.deg2rad(np.linspace(0, degrees, _ANGLES))[:, None]  # turning back is the mirror image
    inside = np.abs(y * np.cos(angles) - x * np.sin(angles)) <= canvas[0] / 2
    inside &= np.abs(y * np.sin(angles) + x * np.cos(angles)) <= canvas[1] / 2
    return float(inside.mean())


def _turned_extent(height: float, width: float, degrees: float) -> tuple[float, float]:
    """Height and width of the hull over all angles."""
    y, x = _points().T * [[height / 2], [width / 2]]
    angles = np.deg2rad(np.linspace(0, degrees, _ANGLES))[:, None]
    down = np.abs(y * np.cos(angles) - x * np.sin(angles)).max()
    across = np.abs(y * np.sin(angles) + x * np.cos(angles)).max()
    return 2 * float(down), 2 * float(across)


@cache
def _points() -> NDArray[np.float64]:
    """``[N, 2]`` (y, x) evenly over the superellipse from -1 to 1."""
    axis = (np.arange(_POINTS) + 0.5) / _POINTS * 2 - 1
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.asarray(grid[(np.abs(grid) ** _ROUNDNESS).sum(axis=1) <= 1])
