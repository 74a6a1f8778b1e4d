"""Coronal and sagittal planes through what an axial picture shows, and the PET of that slice, alone and on the CT.

Canonical arrays run to the patient's left, back and head: the right side and the front are on the left of a picture,
the head is up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.report.case_images import CaseImages
from nndet_psma.report.charts.drawing import (
    FALSE_COLOUR,
    HIT_COLOUR,
    REGION_COLOUR,
    TRUTH_COLOUR,
    View,
    close_up,
    draw_letters,
    draw_outline,
    draw_rectangle,
    draw_scale_bar,
    empty_picture,
)
from nndet_psma.report.findings import CaseFindings
from nndet_psma.report.page.content import Picture
from nndet_psma.report.page.figures import jpeg
from nndet_psma.report.shots import Shot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RATIO = 0.75  # height / width
_SUV_LEAST, _SUV_SHARE = 5.0, 0.999  # upper end of the scale: this quantile of the image, at least so much
_OVERLAY = 0.55  # opacity of the PET on the CT
_LETTERS = {"coronal": ("R", "L"), "sagittal": ("A", "P")}


@dataclass(frozen=True)
class _Plane:
    """A plane of the volume with its first axis up (z) and the second to the right (x or y).

    Attributes:
        name: "coronal" or "sagittal".
        place: index of the plane on the axis it cuts, y or x.
        spacing: (z, horizontal) mm.
    """

    name: str
    place: int
    spacing: tuple[float, float]

    def of(self, volume: NDArray[Any]) -> NDArray[Any]:
        plane: NDArray[Any] = volume[:, self.place] if self.name == "coronal" else volume[:, :, self.place]
        return plane


def cross_sections(shot: Shot, images: CaseImages, found: CaseFindings) -> list[Picture]:
    """A coronal and a sagittal picture through the middle of the shot's focus."""
    y0, x0, y1, x1 = shot.focus
    sz, sy, sx = images.grid.spacing
    _, height, width = images.image.shape
    coronal = _Plane("coronal", int(np.clip((y0 + y1) / 2, 0, height - 1)), (sz, sx))
    sagittal = _Plane("sagittal", int(np.clip((x0 + x1) / 2, 0, width - 1)), (sz, sy))
    return [
        _draw_plane(coronal, (x0, x1), shot, images, found),
        _draw_plane(sagittal, (y0, y1), shot, images, found),
    ]


def pet_pictures(shot: Shot, images: CaseImages, view: View) -> list[Picture]:
    """PET of the slice in the same view, dark where uptake is high, and in colours on the CT; [] without PET."""
    if images.pet is None:
        return []
    upper = max(_SUV_LEAST, float(np.quantile(images.pet, _SUV_SHARE)))
    alone = f"PET of slice {shot.slice + 1} of case {shot.case_id}, SUV 0 (white) to {upper:.1f} (black)"
    fused = f"PET on CT of slice {shot.slice + 1} of case {shot.case_id}, SUV 0 to {upper:.1f} (yellow)"
    return [
        _draw_pet(shot, images, images.pet, view, upper, alone, fused=False),
        _draw_pet(shot, images, images.pet, view, upper, fused, fused=True),
    ]


def _draw_plane(
    plane: _Plane, across: tuple[float, float], shot: Shot, images: CaseImages, found: CaseFindings
) -> Picture:
    focus = (float(shot.slice), across[0], shot.slice + 1.0, across[1])
    view = close_up(focus, plane.spacing, _RATIO)
    figure, axes = empty_picture(view, plane.spacing)
    image, (lower, upper) = plane.of(images.image), images.window
    _show(axes, image, vmin=lower, vmax=upper, cmap="gray")
    if images.region is not None:
        draw_outline(axes, plane.of(images.region), REGION_COLOUR, 1.0)
    draw_outline(axes, plane.of(images.instances) > 0, TRUTH_COLOUR, 1.4)
    for row in range(len(found.boxes)):
        y0, x0, y1, x1 = found.boxes.boxes[row].tolist()
        z = float(found.boxes.columns["slice"][row])
        cut, low, high = (y0, y1), x0, x1
        if plane.name == "sagittal":
            cut, low, high = (x0, x1), y0, y1
        if cut[0] <= plane.place < cut[1]:
            colour = HIT_COLOUR if found.boxes.columns["hit"][row] else FALSE_COLOUR
            draw_rectangle(axes, (z, low, z + 1, high), colour, linewidth=0.9)
    axes.axhline(shot.slice + 0.5, color="white", linewidth=0.6, linestyle=(0, (6, 6)))
    axes.set_xlim(view.x0, view.x1)
    axes.set_ylim(view.y0, view.y1)
    draw_scale_bar(axes, view, plane.spacing[1])
    left, right = _LETTERS[plane.name]
    draw_letters(axes, left=left, right=right, top="H", bottom="F")
    return jpeg(
        figure,
        int(figure.dpi),
        f"{plane.name.capitalize()} plane of case {shot.case_id} through the middle of the close-up; the dashed "
        f"line is axial slice {shot.slice + 1}.",
    )


def _draw_pet(
    shot: Shot, images: CaseImages, volume: NDArray[Any], view: View, upper: float, alt: str, *, fused: bool
) -> Picture:
    spacing = images.grid.spacing[1:]
    figure, axes = empty_picture(view, (spacing[0], spacing[1]))
    pet = volume[shot.slice]
    if fused:
        _show(axes, images.image[shot.slice], vmin=images.window[0], vmax=images.window[1], cmap="gray")
        share = np.clip(pet / upper, 0.0, 1.0)
        _show(axes, pet, vmin=0.0, vmax=upper, cmap="hot", alpha=_OVERLAY * np.sqrt(share))
    else:
        _show(axes, pet, vmin=0.0, vmax=upper, cmap="gray_r")
    draw_outline(axes, images.instances[shot.slice] > 0, TRUTH_COLOUR, 1.0)
    axes.set_xlim(view.x0, view.x1)
    axes.set_ylim(view.y1, view.y0)
    draw_scale_bar(axes, view, spacing[1])
    draw_letters(axes, left="R", right="L", top="A", bottom="P")
    return jpeg(figure, int(figure.dpi), alt)


def _show(axes: Axes, plane: NDArray[Any], **options: Any) -> None:
    height, width = plane.shape
    axes.imshow(
        plane,
        extent=(0, width, 0, height),
        origin="lower",
        interpolation="bilinear",
        aspect="auto",
        **options,
    )
