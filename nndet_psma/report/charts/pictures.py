"""Axial slices with search region, truth and boxes: the examined region, and a close-up.

Canonical arrays run to the patient's left, so the patient's right is on the left of the picture, as radiologists
read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nndet_psma.boxes.clustering import nms_mask
from nndet_psma.report.case_images import CaseImages
from nndet_psma.report.findings import CaseFindings
from nndet_psma.report.page.content import Picture
from nndet_psma.report.page.figures import jpeg
from nndet_psma.report.removed import PlacedBox
from nndet_psma.report.shots import Rectangle, Shot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REGION_COLOUR, TRUTH_COLOUR = "#ffd60a", "#3fa9ff"
HIT_COLOUR, FALSE_COLOUR, REMOVED_COLOUR = "#2ee66b", "#ff8c1a", "#b9bec6"
HIDDEN_STEPS = ("nms", "score")  # duplicates and low scores would cover the picture
MAX_REMOVED = 8
_WIDTH, _DPI = 640, 100  # pixels
_CLOSE_UP_MM = 56.0
_HEADROOM = 0.06  # share of a close-up kept for a score above its box
_SAME_PLACE = 0.1  # IoU from which on a box is drawn as a companion of a better one
_FLATTEST, _TALLEST = 0.62, 1.05  # height / width


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


def take(shot: Shot, images: CaseImages, found: CaseFindings, removed: Sequence[PlacedBox]) -> list[Picture]:
    """The examined region with a frame round the close-up, and the close-up with scores."""
    spacing = images.grid.spacing[1:]
    whole = region_view(found, shot, spacing)
    close = close_up(shot.focus, spacing, _ratio(whole, spacing))
    here = [box for box in removed if shot.slice in box.slices and box.step not in HIDDEN_STEPS][:MAX_REMOVED]
    scene = _Scene(shot, images, found, here)
    pictures = [scene.draw(whole, close, detail=False)]
    if _area(close) < 0.7 * _area(whole):
        pictures.append(scene.draw(close, None, detail=True))
    return pictures


def region_view(found: CaseFindings, shot: Shot, spacing: tuple[float, float]) -> View:
    """The examined box and the focus with a rim, brought to a handy shape."""
    _, y0, x0, _, y1, x1 = found.examined
    f0, g0, f1, g1 = shot.focus
    y0, x0, y1, x1 = min(y0, f0), min(x0, g0), max(y1, f1), max(x1, g1)
    rim = 8.0  # mm
    view = View(y0 - rim / spacing[0], x0 - rim / spacing[1], y1 + rim / spacing[0], x1 + rim / spacing[1])
    ratio = _ratio(view, spacing)
    return _reshape(view, spacing, min(max(ratio, _FLATTEST), _TALLEST))


def close_up(focus: Rectangle, spacing: tuple[float, float], ratio: float) -> View:
    """A window round ``focus`` with room on all sides, at least 56 mm wide, ``ratio`` = height / width."""
    y0, x0, y1, x1 = focus
    height, width = (y1 - y0) * spacing[0], (x1 - x0) * spacing[1]
    wide = max(_CLOSE_UP_MM, 1.7 * width, 1.7 * height / ratio)
    dy, dx = wide * ratio / spacing[0] / 2, wide / spacing[1] / 2
    cy, cx = (y0 + y1) / 2, (x0 + x1) / 2
    return View(cy - dy, cx - dx, cy + dy, cx + dx)


def _ratio(view: View, spacing: tuple[float, float]) -> float:
    return (view.y1 - view.y0) * spacing[0] / ((view.x1 - view.x0) * spacing[1])


def _area(view: View) -> float:
    return (view.y1 - view.y0) * (view.x1 - view.x0)


def _reshape(view: View, spacing: tuple[float, float], ratio: float) -> View:
    """The smallest view round ``view`` with height / width = ``ratio`` in mm."""
    height, width = (view.y1 - view.y0) * spacing[0], (view.x1 - view.x0) * spacing[1]
    more_y = max(0.0, width * ratio - height) / spacing[0] / 2
    more_x = max(0.0, height / ratio - width) / spacing[1] / 2
    return View(view.y0 - more_y, view.x0 - more_x, view.y1 + more_y, view.x1 + more_x)


@dataclass(frozen=True)
class _Scene:
    """Everything that may be seen on one slice."""

    shot: Shot
    images: CaseImages
    found: CaseFindings
    removed: Sequence[PlacedBox]

    def draw(self, view: View, frame: View | None, *, detail: bool) -> Picture:
        from matplotlib.figure import Figure

        spacing = self.images.grid.spacing[1:]
        width = _WIDTH / _DPI
        figure = Figure(figsize=(width, width * _ratio(view, spacing)), dpi=_DPI, facecolor="black")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        self._image(axes, detail)
        thick = 2.0 if detail else 1.4
        for box in self.removed:
            _rectangle(axes, box.box, REMOVED_COLOUR, linewidth=0.9, linestyle=(0, (4, 3)))
        self._accepted(axes, thick, view if detail else None)
        self._outlines(axes, thick)
        if frame is not None:
            _rectangle(axes, frame.rectangle, "white", linewidth=0.7)
        axes.set_xlim(view.x0, view.x1)
        axes.set_ylim(view.y1, view.y0)
        axes.set_aspect("auto")
        _scale_bar(axes, view, spacing[1])
        if not detail:
            _sides(axes)
        return jpeg(figure, _DPI, self._alt(detail))

    def _image(self, axes: Axes, detail: bool) -> None:
        plane = self.images.image[self.shot.slice]
        lower, upper = self.images.window
        height, width = plane.shape
        axes.imshow(
            plane,
            cmap="gray",
            vmin=lower,
            vmax=upper,
            extent=(0, width, height, 0),
            interpolation="bicubic" if detail else "bilinear",
        )

    def _outlines(self, axes: Axes, thick: float) -> None:
        z = self.shot.slice
        if self.images.region is not None:
            _outline(axes, self.images.region[z], REGION_COLOUR, thick * 0.7)
        _outline(axes, self.images.instances[z] > 0, TRUTH_COLOUR, thick)

    def _accepted(self, axes: Axes, thick: float, close: View | None) -> None:
        """Best boxes strong and with their score, the many others round them faint."""
        boxes = self.found.boxes
        here = boxes.select(boxes.columns["slice"] == self.shot.slice).sorted_by_score()
        strong = nms_mask(here, _SAME_PLACE)
        for row in np.flatnonzero(~strong).tolist() + np.flatnonzero(strong).tolist():
            colour = HIT_COLOUR if here.columns["hit"][row] else FALSE_COLOUR
            box = here.boxes[row].tolist()
            faint = {} if strong[row] else {"alpha": 0.4}
            _rectangle(axes, box, colour, linewidth=thick if strong[row] else 0.8, **faint)
            if close is not None and strong[row] and _meets(close, box):
                corner = (max(box[1], close.x0), max(box[0], close.y0 + _HEADROOM * (close.y1 - close.y0)))
                text = f" {here.scores[row]:.2f}"
                _text(axes, *corner, text, colour, va="bottom", weight="bold", clip_on=True)

    def _alt(self, detail: bool) -> str:
        boxes = self.found.boxes
        here = boxes.columns["slice"] == self.shot.slice
        hits = int((here & boxes.columns["hit"]).sum())
        lesions = int((self.found.labels.truth.slice_indices == self.shot.slice).sum())
        part = "Close-up" if detail else "Examined region"
        return (
            f"{part} of axial slice {self.shot.slice} of case {self.shot.case_id}: true lesions {lesions}, "
            f"boxes that hit {hits}, false boxes {int(here.sum()) - hits}, removed boxes shown {len(self.removed)}."
        )


def _meets(view: View, box: Sequence[float]) -> bool:
    return box[0] < view.y1 and box[2] > view.y0 and box[1] < view.x1 and box[3] > view.x0


def _outline(axes: Axes, mask: Any, colour: str, thick: float) -> None:
    """Outline of a mask; padded so that it closes at the border of the image."""
    if not mask.any():
        return
    padded = np.pad(mask.astype(np.float32), 1)
    x, y = np.arange(padded.shape[1]) - 0.5, np.arange(padded.shape[0]) - 0.5
    axes.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=thick, zorder=3)


def _rectangle(axes: Axes, box: Sequence[float], colour: str, **style: Any) -> None:
    from matplotlib.patches import Rectangle as Patch

    y0, x0, y1, x1 = box
    axes.add_patch(Patch((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, **style))


def _text(axes: Axes, x: float, y: float, text: str, colour: str, **style: Any) -> None:
    from matplotlib.patheffects import withStroke

    edge = [withStroke(linewidth=2, foreground="black")]
    axes.text(x, y, text, color=colour, fontsize=13, path_effects=edge, **style)


def _scale_bar(axes: Axes, view: View, pixel_mm: float) -> None:
    wide = (view.x1 - view.x0) * pixel_mm
    length = next((mm for mm in (100, 50, 20, 10, 5) if mm <= wide / 4), 2)
    share = length / wide
    place: dict[str, Any] = {"transform": axes.transAxes}
    axes.plot(
        [0.96 - share, 0.96], [0.045, 0.045], color="white", linewidth=3, solid_capstyle="butt", **place
    )
    _text(axes, 0.96 - share / 2, 0.06, f"{length} mm", "white", ha="center", va="bottom", **place)


def _sides(axes: Axes) -> None:
    _text(axes, 0.015, 0.5, "R", "white", va="center", transform=axes.transAxes)
    _text(axes, 0.985, 0.5, "L", "white", ha="right", va="center", transform=axes.transAxes)
