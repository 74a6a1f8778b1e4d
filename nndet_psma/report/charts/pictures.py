"""Axial slices with search region, truth and boxes: the examined region, and a close-up.

Canonical arrays run to the patient's left, so the patient's right is on the left of the picture, as radiologists
read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nndet_psma.boxes.clustering import nms_mask
from nndet_psma.report.case_images import CaseImages
from nndet_psma.report.charts.cross_sections import cross_sections, pet_pictures
from nndet_psma.report.charts.drawing import (
    FALSE_COLOUR,
    HIT_COLOUR,
    REGION_COLOUR,
    REMOVED_COLOUR,
    TRUTH_COLOUR,
    View,
    close_up,
    draw_letters,
    draw_outline,
    draw_rectangle,
    draw_scale_bar,
    draw_text,
    empty_picture,
)
from nndet_psma.report.findings import CaseFindings
from nndet_psma.report.page.content import Picture
from nndet_psma.report.page.figures import jpeg
from nndet_psma.report.removed import PlacedBox
from nndet_psma.report.shots import Shot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HIDDEN_STEPS = ("nms", "score")  # duplicates and low scores would cover the picture
MAX_REMOVED = 8
_HEADROOM = 0.06  # share of a close-up kept for a score above its box
_SAME_PLACE = 0.1  # IoU from which on a box is drawn as a companion of a better one
_FLATTEST, _TALLEST = 0.62, 1.05  # height / width


def take(shot: Shot, images: CaseImages, found: CaseFindings, removed: Sequence[PlacedBox]) -> list[Picture]:
    """The examined region with a frame round the close-up, the close-up with scores, two more planes, and the PET."""
    spacing = images.grid.spacing[1:]
    whole = region_view(found, shot, spacing)
    close = close_up(shot.focus, spacing, whole.ratio(spacing))
    here = [box for box in removed if shot.slice in box.slices and box.step not in HIDDEN_STEPS][:MAX_REMOVED]
    scene = _Scene(shot, images, found, here)
    pictures = [scene.draw(whole, close, detail=False)]
    if close.area < 0.7 * whole.area:
        pictures.append(scene.draw(close, None, detail=True))
    return [*pictures, *cross_sections(shot, images, found), *pet_pictures(shot, images, whole)]


def region_view(found: CaseFindings, shot: Shot, spacing: tuple[float, float]) -> View:
    """The examined box and the focus with a rim, brought to a handy shape."""
    _, y0, x0, _, y1, x1 = found.examined
    f0, g0, f1, g1 = shot.focus
    y0, x0, y1, x1 = min(y0, f0), min(x0, g0), max(y1, f1), max(x1, g1)
    rim = 8.0  # mm
    view = View(y0 - rim / spacing[0], x0 - rim / spacing[1], y1 + rim / spacing[0], x1 + rim / spacing[1])
    return view.with_ratio(spacing, min(max(view.ratio(spacing), _FLATTEST), _TALLEST))


@dataclass(frozen=True)
class _Scene:
    """Everything that may be seen on one slice."""

    shot: Shot
    images: CaseImages
    found: CaseFindings
    removed: Sequence[PlacedBox]

    def draw(self, view: View, frame: View | None, *, detail: bool) -> Picture:
        spacing = self.images.grid.spacing[1:]
        figure, axes = empty_picture(view, spacing)
        self._image(axes, detail)
        thick = 2.0 if detail else 1.4
        for box in self.removed:
            draw_rectangle(axes, box.box, REMOVED_COLOUR, linewidth=0.9, linestyle=(0, (4, 3)))
        self._accepted(axes, thick, view if detail else None)
        self._outlines(axes, thick)
        if frame is not None:
            draw_rectangle(axes, frame.rectangle, "white", linewidth=0.7)
        axes.set_xlim(view.x0, view.x1)
        axes.set_ylim(view.y1, view.y0)
        draw_scale_bar(axes, view, spacing[1])
        draw_letters(axes, left="R", right="L", top="A", bottom="P")
        return jpeg(figure, int(figure.dpi), self._alt(detail))

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
            aspect="auto",
        )

    def _outlines(self, axes: Axes, thick: float) -> None:
        z = self.shot.slice
        if self.images.region is not None:
            draw_outline(axes, self.images.region[z], REGION_COLOUR, thick * 0.7)
        draw_outline(axes, self.images.instances[z] > 0, TRUTH_COLOUR, thick)

    def _accepted(self, axes: Axes, thick: float, close: View | None) -> None:
        """Best boxes strong and with their score, the many others round them faint."""
        boxes = self.found.boxes
        here = boxes.select(boxes.columns["slice"] == self.shot.slice).sorted_by_score()
        strong = nms_mask(here, _SAME_PLACE)
        for row in np.flatnonzero(~strong).tolist() + np.flatnonzero(strong).tolist():
            colour = HIT_COLOUR if here.columns["hit"][row] else FALSE_COLOUR
            box = here.boxes[row].tolist()
            faint = {} if strong[row] else {"alpha": 0.4}
            draw_rectangle(axes, box, colour, linewidth=thick if strong[row] else 0.8, **faint)
            if close is not None and strong[row] and _meets(close, box):
                corner = (max(box[1], close.x0), max(box[0], close.y0 + _HEADROOM * (close.y1 - close.y0)))
                text = f" {here.scores[row]:.2f}"
                draw_text(axes, *corner, text, colour, va="bottom", weight="bold", clip_on=True)

    def _alt(self, detail: bool) -> str:
        boxes = self.found.boxes
        here = boxes.columns["slice"] == self.shot.slice
        hits = int((here & boxes.columns["hit"]).sum())
        lesions = int((self.found.labels.truth.slice_indices == self.shot.slice).sum())
        part = "Close-up" if detail else "Examined region"
        return (
            f"{part} of axial slice {self.shot.slice + 1} of case {self.shot.case_id}: true lesions {lesions}, "
            f"boxes that hit {hits}, false boxes {int(here.sum()) - hits}, removed boxes shown {len(self.removed)}."
        )


def _meets(view: View, box: Sequence[float]) -> bool:
    return box[0] < view.y1 and box[2] > view.y0 and box[1] < view.x1 and box[3] > view.x0
