"""A pelvic nodal CTV in the manner of the RTOG consensus, drawn from anatomy alone (blind to the nodes).

Source: the contours that Xu et al. 2023 search in: common, external and internal iliac vessels with a margin of
7 mm, the obturator fossa and the presacral space, without bone, bowel, bladder and most of the muscle.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from nndet_psma.dataset.phantom.canvas import Array, Canvas, Mask
from nndet_psma.dataset.phantom.habitus import Habitus
from nndet_psma.dataset.phantom.tissue import BONES, HOLLOW_ORGANS, Tissue
from nndet_psma.dataset.phantom.vessels import Vessel

MARGIN_MM = 7.0
PRESACRAL_MM = 11.0
# template heights: from the top of the femoral heads (external), the sciatic foramen (internal), to L5/S1
LOWEST_MM = {"common iliac": 100.0, "external iliac": 36.0, "internal iliac": 60.0}
HIGHEST_MM = 140.0
# z, first end y, x, second end y, x, half thickness, bend
OBTURATOR_FOSSA = np.array(
    [[20, 16, 43, -18, 43, 7, 0], [45, 20, 44, -18, 47, 8, 0], [62, 24, 49, -10, 51, 9, 0]], float
)
# the strip of 18 mm along the pelvic wall that joins the external and the internal contour
SIDEWALL = np.array(
    [[56, 28, 52, -12, 54, 9, 0], [85, 28, 46, 2, 50, 9, 0], [106, 22, 42, 10, 41, 9, 0]], float
)
PRESACRAL_HEIGHTS_MM = (80.0, 132.0)
PRESACRAL_HALF_WIDTH_MM = 32.0


def nodal_ctv(canvas: Canvas, habitus: Habitus, vessels: list[Vessel]) -> Mask:
    """Search region of a case, ``[z, y, x]``.

    Args:
        canvas: body, organs and vessels drawn; nodes and bowel not needed.
        habitus: stretch of the template.
        vessels: centrelines the region follows.
    """
    region = Canvas(canvas.geometry)
    for vessel in vessels:
        keep = vessel.points[:, 0] >= LOWEST_MM[vessel.territory] * habitus.scale[0] - 4
        points, radii = vessel.points[keep], vessel.radii[keep]
        region.tube(points, radii + MARGIN_MM, Tissue.NODE)
    for side in (1, -1):
        for strip in (OBTURATOR_FOSSA, SIDEWALL):
            region.plate(habitus.plate_rows(strip, side), Tissue.NODE)
    drawn = region.tissue == Tissue.NODE
    drawn |= _presacral(canvas, habitus)
    heights = canvas.axes[0]
    drawn[(heights > HIGHEST_MM * habitus.scale[0])] = False
    return _smooth(drawn & ~spared(canvas))


def spared(canvas: Canvas) -> Mask:
    """Voxels a CTV leaves out: bone, hollow organs, skin and air, and muscle but for its outermost voxel in-plane."""
    out = np.isin(canvas.tissue, (*BONES, *HOLLOW_ORGANS, Tissue.SKIN, Tissue.AIR, Tissue.TABLE))
    muscle = canvas.tissue == Tissue.MUSCLE
    plane = ndimage.generate_binary_structure(2, 1)[None]
    left_out: Mask = out | ndimage.binary_erosion(muscle, plane)
    return left_out


def _presacral(canvas: Canvas, habitus: Habitus) -> Mask:
    """The strip just in front of the sacrum."""
    low, high = (h * habitus.scale[0] for h in PRESACRAL_HEIGHTS_MM)
    half = PRESACRAL_HALF_WIDTH_MM * habitus.scale[2]
    window = canvas.window((low, -20, -half), (high, 120, half))
    bone = np.isin(canvas.tissue[window], (Tissue.CORTEX, Tissue.MARROW))
    strip = np.zeros_like(bone)
    for shift in range(1, round(PRESACRAL_MM / canvas.geometry.spacing[1]) + 1):
        strip[:, :-shift] |= bone[:, shift:]
    region = np.zeros(canvas.tissue.shape, dtype=bool)
    region[window] = strip & ~bone
    return region


def _smooth(region: Mask) -> Mask:
    """Round the contour within each slice, as a drawn one is, without growing into what was spared."""
    smooth: Array = ndimage.uniform_filter(region.astype(np.float32), size=(1, 3, 3))
    return region & (smooth > 0.4)


def distance_outside(region: Mask, spacing: tuple[float, float, float], reach_mm: float = 30.0) -> Array:
    """Distance (mm) from each voxel centre to the nearest voxel centre of ``region``; 0 inside.

    Only a box ``reach_mm`` round the region is computed; further out the value is infinite.
    """
    distance = np.full(region.shape, np.inf)
    found = ndimage.find_objects(region.astype(np.uint8))
    if not found:
        return distance
    window = tuple(
        slice(max(0, s.start - int(reach_mm / step) - 1), s.stop + int(reach_mm / step) + 1)
        for s, step in zip(found[0], spacing, strict=True)
    )
    distance[window] = ndimage.distance_transform_edt(~region[window], sampling=spacing)
    return distance
