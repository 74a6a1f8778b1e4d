"""What pictures of scans share: the part that is seen, outlines, boxes, letters of the sides, and the scale bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nndet_psma.report.shots import Rectangle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REGION_COLOUR, TRUTH_COLOUR = "#ffd60a", "#3fa9ff"
HIT_COLOUR, FALSE_COLOUR, REMOVED_COLOUR = "#2ee66b", "#ff8c1a", "#b9bec6"
_WIDTH, _DPI = 640, 100  # pixels
_CLOSE_UP_MM = 56.0


@dataclass(frozen=True)
class View:
    """Part of a slice in voxels (y0, x0, y1, x1); it may reach beyond the image, which is black there."""

    y0: float
    x0: float
    y1: float
    x1: float

    @property
    def rectangle(self) -> Rectangle:
        """As a tuple."""
        return self.y0, self.x0, self.y1, self.x1

    @property
    def area(self) -> float:
        """In voxels."""
        return (self.y1 - self.y0) * (self.x1 - self.x0)

    def ratio(self, spacing: tuple[float, float]) -> float:
        """Height / width in mm."""
        return (self.y1 - self.y0) * spacing[0] / ((self.x1 - self.x0) * spacing[1])

    def with_ratio(self, spacing: tuple[float, float], ratio: float) -> View:
        """The smallest view round this one with height / width = ``ratio`` in mm."""
        height, width = (self.y1 - self.y0) * spacing[0], (self.x1 - self.x0) * spacing[1]
        more_y = max(0.0, width * ratio - height) / spacing[0] / 2
        more_x = max(0.0, height / ratio - width) / spacing[1] / 2
        return View(self.y0 - more_y, self.x0 - more_x, self.y1 + more_y, self.x1 + more_x)


def close_up(focus: Rectangle, spacing: tuple[float, float], ratio: float) -> View:
    """A window round ``focus`` with room on all sides, at least 56 mm wide, ``ratio`` = height / width."""
    y0, x0, y1, x1 = focus
    height, width = (y1 - y0) * spacing[0], (x1 - x0) * spacing[1]
    wide = max(_CLOSE_UP_MM, 1.7 * width, 1.7 * height / ratio)
    dy, dx = wide * ratio / spacing[0] / 2, wide / spacing[1] / 2
    cy, cx = (y0 + y1) / 2, (x0 + x1) / 2
    return View(cy - dy, cx - dx, cy + dy, cx + dx)


def empty_picture(view: View, spacing: tuple[float, float]) -> tuple[Figure, Axes]:
    """A black figure as wide as all pictures and as high as ``view`` asks for, without frame."""
    from matplotlib.figure import Figure

    width = _WIDTH / _DPI
    figure = Figure(figsize=(width, width * view.ratio(spacing)), dpi=_DPI, facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.set_aspect("auto")
    return figure, axes


def draw_outline(axes: Axes, mask: Any, colour: str, thick: float) -> None:
    """Outline of a mask; padded so that it closes at the border of the image."""
    if not mask.any():
        return
    padded = np.pad(mask.astype(np.float32), 1)
    x, y = np.arange(padded.shape[1]) - 0.5, np.arange(padded.shape[0]) - 0.5
    axes.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=thick, zorder=3)


def draw_rectangle(axes: Axes, box: Sequence[float], colour: str, **style: Any) -> None:
    """Outline of (y0, x0, y1, x1)."""
    from matplotlib.patches import Rectangle as Patch

    y0, x0, y1, x1 = box
    axes.add_patch(Patch((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, **style))


def draw_text(axes: Axes, x: float, y: float, text: str, colour: str, **style: Any) -> None:
    """Text with a dark rim, legible on any tissue."""
    from matplotlib.patheffects import withStroke

    edge = [withStroke(linewidth=2, foreground="black")]
    axes.text(x, y, text, color=colour, fontsize=13, path_effects=edge, **style)


def draw_scale_bar(axes: Axes, view: View, pixel_mm: float) -> None:
    """A round number of mm, at most a quarter of the width; ``pixel_mm`` is the horizontal spacing."""
    wide = (view.x1 - view.x0) * pixel_mm
    length = next((mm for mm in (100, 50, 20, 10, 5) if mm <= wide / 4), 2)
    share = length / wide
    place: dict[str, Any] = {"transform": axes.transAxes}
    axes.plot(
        [0.96 - share, 0.96], [0.045, 0.045], color="white", linewidth=3, solid_capstyle="butt", **place
    )
    draw_text(axes, 0.96 - share / 2, 0.06, f"{length} mm", "white", ha="center", va="bottom", **place)


def draw_letters(axes: Axes, *, left: str, right: str, top: str, bottom: str) -> None:
    """The sides of the patient at the edges of the picture."""
    places = {"transform": axes.transAxes}
    draw_text(axes, 0.015, 0.5, left, "white", va="center", **places)
    draw_text(axes, 0.985, 0.5, right, "white", ha="right", va="center", **places)
    draw_text(axes, 0.5, 0.985, top, "white", ha="center", va="top", **places)
    draw_text(axes, 0.5, 0.015, bottom, "white", ha="center", va="bottom", **places)
