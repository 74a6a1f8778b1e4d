"""Where the patient is: the region used when no search region is given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

AIR_LIMIT_HU = -300.0  # between air and fat
_COARSE_MM = 3.0  # the grid for morphology: fine enough for the skin, coarse enough to be fast
_OPENING_MM = 6.0  # radius: cuts shells of tables up to about 12 mm, leaves limbs
_SECOND_SHARE = 0.2  # a further component of this share of the largest is body, too: the other thigh, an arm


def body_mask(array_hu: NDArray[Any], spacing: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Body in a CT, without table and cushions, with the air inside the body.

    Everything denser than -300 HU is opened within slices on a coarse grid, which cuts off the thin shell of a
    table; large components are kept, refined to the full grid, and their holes filled slice by slice.

    Args:
        array_hu: CT (z, y, x), HU.
        spacing: mm (z, y, x).

    Returns:
        mask (z, y, x); all False when nothing is denser than air.
    """
    dense = array_hu > AIR_LIMIT_HU
    steps = [max(1, round(_COARSE_MM / step)) for step in spacing[1:]]
    coarse = dense[:, :: steps[0], :: steps[1]]
    disk = _disk([_OPENING_MM / (step * s) for step, s in zip(steps, spacing[1:], strict=True)])
    # the border of the image is no surface of the body: erosion must not eat it there
    opened = ndimage.binary_dilation(ndimage.binary_erosion(coarse, disk, border_value=1), disk) & coarse
    kept = _large_components(opened if opened.any() else coarse)
    near = ndimage.binary_dilation(kept, np.ones((1, 3, 3), dtype=bool))  # lost less than a coarse pixel
    fine = near.repeat(steps[0], axis=1).repeat(steps[1], axis=2)[:, : dense.shape[1], : dense.shape[2]]
    return fill_slices(dense & fine)


def nonzero_mask(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Region of an image without units that is not exactly zero, holes filled slice by slice."""
    return fill_slices(array != 0)


def fill_slices(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill every hole that is enclosed within its axial slice (y, x), 4-connected background."""
    filled = mask.copy()
    for index, plane in enumerate(mask):
        if not plane.any():
            continue
        regions, _ = ndimage.label(~plane)
        border = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
        outside = np.zeros(regions.max() + 1, dtype=bool)
        outside[border] = True
        outside[0] = False
        filled[index] = ~outside[regions]
    return filled


def _large_components(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes >= _SECOND_SHARE * sizes.max())[labels] & mask


def _disk(radii: list[float]) -> NDArray[np.bool_]:
    """Ellipse of radii (y, x) in pixels as a structuring element (1, h, w)."""
    reach = [int(np.floor(radius)) for radius in radii]
    y, x = np.ogrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    inside = (y / max(radii[0], 1e-6)) ** 2 + (x / max(radii[1], 1e-6)) ** 2 <= 1
    return inside[None]
