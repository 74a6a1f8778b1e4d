"""How far every voxel lies outside or inside the CTV: exact up to a reach, on as few voxels as that takes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nndet_psma.preprocess.grid import mask_box

UNIT_MM = 0.01
"""Distances are stored in hundredths of a millimetre, rounded to the nearest."""

BEYOND = 32767
"""Stored where a voxel lies further outside than the reach (327.67 mm); its negative where there is no outside."""

_REACH_STEP_MM = 60.0
_REACH_SPARE_MM = 10.0


def reach_mm(margin_mm: float) -> float:
    """Up to where distances are exact for a plan with this CTV margin: 60 mm, or further in steps of 60 mm.

    At least 10 mm more than the margin, so that every margin and every zone of a sweep (both end at the margin) is
    covered; in steps, so that another margin does not ask for other arrays.
    """
    return _REACH_STEP_MM * max(1, math.ceil((margin_mm + _REACH_SPARE_MM) / _REACH_STEP_MM))


def signed_distance(
    mask: NDArray[np.bool_], spacing: tuple[float, float, float], reach: float
) -> NDArray[np.int16]:
    """Hundredths of mm to the nearest voxel centre of the CTV (outside, positive) or of its outside (inside, negative).

    Inside the CTV the value is always exact. Outside it is exact up to ``reach``; further away it is
    :data:`BEYOND`. Euclidean, after Maurer (2003), on the CTV's box grown by the reach.

    Args:
        mask: CTV (z, y, x).
        spacing: mm (z, y, x).
        reach: mm; see :func:`reach_mm`.
    """
    found = np.full(mask.shape, BEYOND, dtype=np.int16)
    box = mask_box(mask)
    if box is None:
        return found
    around = _grown(box, [math.ceil(reach / step) for step in spacing], mask.shape)
    _fill(found[around], mask[around], spacing, reach)
    # the voxel outside that is nearest to one inside touches the CTV's box: a shell of one voxel holds it
    near = _grown(box, [1, 1, 1], mask.shape)
    inside = mask[near]
    depth = np.full(inside.shape, BEYOND, dtype=np.int16)
    if not inside.all():
        _fill(depth, ~inside, spacing, math.inf)
    found[near][inside] = -depth[inside]
    return found


def _fill(
    target: NDArray[np.int16], mask: NDArray[np.bool_], spacing: tuple[float, float, float], reach: float
) -> None:
    """Distance to ``mask`` for every voxel outside it, written slice by slice; 0 within."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(mask.view(np.uint8) if mask.flags.c_contiguous else mask.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    distance = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    limit = min(reach, (BEYOND - 1) * UNIT_MM)
    for index, plane in enumerate(sitk.GetArrayViewFromImage(distance)):
        rounded = np.rint(
            np.maximum(plane, 0) / np.float32(UNIT_MM)
        )  # within a full mask ITK gives -infinity
        target[index] = np.where(rounded <= round(limit / UNIT_MM), rounded, BEYOND)


def _grown(box: NDArray[np.int64], by: list[int], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(
        slice(max(0, first - grow), min(size, end + grow))
        for (first, end), grow, size in zip(box.reshape(2, 3).T.tolist(), by, shape, strict=True)
    )
