"""A pelvic nodal CTV made by rule from the iliac vessels, for images that nobody contoured.

The rule is that of the RTOG consensus on pelvic node volumes (Lawton et al. 2009, which the central paper's contours
follow, too): the vessels with a margin of 7 mm, from the level of L5/S1 down to the top of the femoral heads, carved
out where bone, bowel, bladder or muscle lie. What it leaves out: the presacral nodes and the obturator region below the
femoral heads, which no vessel mask reaches. It is a search region, not a target for treatment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, distance_transform_edt

MARGIN_MM = 7.0
"""Radial margin round the vessels, RTOG consensus (Lawton et al. 2009)."""

VESSELS = ("iliac_artery_*", "iliac_vena_*", "iliac_vein_*")
BONES = ("hip_*", "sacrum", "vertebrae_*", "femur_*")
BOWEL = ("colon", "small_bowel", "duodenum", "rectum", "sigmoid*")
BLADDER = ("urinary_bladder", "bladder")
MUSCLES = ("gluteus_*", "iliopsoas_*", "autochthon_*", "skeletal_muscle", "obturator_*", "piriformis_*")
FEMURS = ("femur_*",)
SACRUM = ("vertebrae_S1", "sacrum")
"""Their top is the level of L5/S1."""


@dataclass(frozen=True)
class Span:
    """Axial slices ``lower`` (caudal) to ``upper`` (cranial, exclusive) of the volume, canonical axes."""

    lower: int
    upper: int


def vessel_span(sacrum: NDArray[np.bool_], femurs: NDArray[np.bool_], slices: int) -> Span:
    """Slices from the top of the femoral heads to the top of the sacrum; open where a landmark is not in the image.

    Args:
        sacrum: mask (z, y, x), z ascending towards the head.
        femurs: mask of both femurs; their highest voxel is the top of the femoral heads.
        slices: of the image.
    """
    bones, legs = (np.flatnonzero(mask.any(axis=(1, 2))) for mask in (sacrum, femurs))
    upper = int(bones.max()) + 1 if len(bones) else slices
    lower = int(legs.max()) + 1 if len(legs) else 0
    return Span(lower, upper) if lower < upper else Span(0, slices)


def nodal_ctv(
    vessels: NDArray[np.bool_],
    excluded: NDArray[np.bool_],
    spacing: tuple[float, float, float],
    *,
    span: Span,
    margin_mm: float = MARGIN_MM,
) -> NDArray[np.bool_]:
    """Vessels of the span with their margin, without what is excluded.

    The margin is measured in three dimensions between voxel centres, from vessels inside the span only. Vessel voxels
    stay even where an excluded mask overlaps them: the two segmentations then contradict each other.

    Args:
        vessels: iliac arteries and veins, mask (z, y, x), z ascending towards the head.
        excluded: bone, bowel, bladder and muscle.
        spacing: mm (z, y, x).
        span: axial slices.
        margin_mm: radial margin.
    """
    kept = np.zeros_like(vessels)
    kept[span.lower : span.upper] = vessels[span.lower : span.upper]
    if not kept.any():
        return kept
    box = _grown_box(kept, margin_mm, spacing)
    near = distance_transform_edt(~kept[box], sampling=spacing) <= margin_mm
    ctv = np.zeros_like(kept)
    ctv[box] = (near & ~excluded[box]) | kept[box]
    ctv[: span.lower] = False
    ctv[span.upper :] = False
    for index in np.flatnonzero(ctv.any(axis=(1, 2))):
        filled = binary_fill_holes(ctv[index])
        ctv[index] = filled & (~excluded[index] | ctv[index])
    return ctv


def _grown_box(
    mask: NDArray[np.bool_], by_mm: float, spacing: tuple[float, float, float]
) -> tuple[slice, ...]:
    box = []
    for axis, step in enumerate(spacing):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(mask.any(axis=others))
        grow = int(np.ceil(by_mm / step)) + 1
        box.append(slice(max(0, int(found[0]) - grow), int(found[-1]) + 1 + grow))
    return tuple(box)
