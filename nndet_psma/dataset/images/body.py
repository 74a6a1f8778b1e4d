"""Where the patient is: the region used when no search region is given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

AIR_LIMIT_HU = -300  # between air and fat
_COARSE_MM = 3.0  # the grid for morphology: fine enough for the skin, coarse enough to be fast
_OPENING_MM = (
    6.0  # radius: cuts shells of tables up to about 12 mm, leaves limbs; twice it tells limbs from boards
)
_CLOSING_MM = 6.0  # radius: bridges the way from the rectum to the outside, and dark streaks of metal
_SQUARE = np.ones((3, 3), dtype=bool)
_PART_SHARE = 0.02  # a further component of this share of the largest is body, too: the other thigh, an arm


def body_mask(array_hu: NDArray[Any], spacing: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Body in a CT with arms and legs and the air inside it, without table and cushions.

    On a coarse grid, everything denser than -300 HU is opened within slices, which cuts off the thin shells of a
    table. Components are kept that are somewhere thicker than 24 mm, as arms are and boards of a table are not, and
    that are not tiny beside the largest, as wires and rails are. Gaps are closed and the air inside is filled slice
    by slice. On the full grid only the skin is left to decide: there, body is what is denser than air.

    Args:
        array_hu: CT (z, y, x), HU.
        spacing: mm (z, y, x).

    Returns:
        mask (z, y, x); all False when nothing is denser than air.
    """
    mask = np.zeros(array_hu.shape, dtype=bool)
    slices = _scanned_slices(array_hu)
    scanned = array_hu[slices]
    steps = [max(1, round(_COARSE_MM / step)) for step in spacing[1:]]
    fine_mm = [step * s for step, s in zip(steps, spacing[1:], strict=True)]
    coarse = scanned[:, :: steps[0], :: steps[1]] > AIR_LIMIT_HU
    kept = _without_table(coarse, fine_mm)
    if kept.any():
        _refine(scanned, kept, _inside(kept, fine_mm), steps, mask[slices])
    return mask


def nonzero_mask(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Region of an image without units that is not exactly zero, holes filled slice by slice."""
    return fill_slices(array != 0)


def fill_slices(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill every hole that is enclosed within its axial slice (y, x), 4-connected background."""
    filled = mask.copy()
    for plane in filled:
        rows = np.flatnonzero(plane.any(axis=1))
        if len(rows) == 0:
            continue
        columns = np.flatnonzero(plane.any(axis=0))
        # whatever lies beyond the tight box is outside, so holes lie within it
        tight = plane[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        if tight.all():
            continue
        regions, count = ndimage.label(~tight)
        outside = np.zeros(count + 1, dtype=bool)
        outside[np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])] = True
        outside[0] = False
        np.logical_not(outside[regions], out=tight)
    return filled


def _scanned_slices(array: NDArray[Any]) -> slice:
    """Slices between those at the ends that hold one value only: padding, of whatever value."""
    varied = [index for index in (0, len(array) - 1) if not _constant(array[index])]
    if len(varied) == 2:
        return slice(0, len(array))
    filled = np.flatnonzero([not _constant(plane) for plane in array])
    return slice(int(filled[0]), int(filled[-1]) + 1) if len(filled) else slice(0, len(array))


def _constant(plane: NDArray[Any]) -> bool:
    return bool(plane.min() == plane.max())


def _without_table(coarse: NDArray[np.bool_], fine_mm: list[float]) -> NDArray[np.bool_]:
    """Thick and large components of the opened mask; of the mask itself when nothing survives the opening."""
    disk = _disk([_OPENING_MM / mm for mm in fine_mm])
    eroded = _eroded(coarse, disk)
    opened = _dilated(eroded, disk) & coarse
    if not opened.any():
        return _large_components(coarse, coarse)
    framed = np.pad(eroded, ((0, 0), (1, 1), (1, 1)))  # here the border counts: tables are often cut by it
    return _large_components(opened, _eroded(framed, disk)[:, 1:-1, 1:-1])


def _inside(kept: NDArray[np.bool_], fine_mm: list[float]) -> NDArray[np.bool_]:
    """Coarse pixels that are body whatever their HU: closed, filled, and one pixel away from the skin."""
    disk = _disk([_CLOSING_MM / mm for mm in fine_mm])
    room = max(disk.shape) // 2  # air beyond the image: a gap between body and border is not closed
    framed = np.pad(kept, ((0, 0), (room, room), (room, room)))
    closed = _eroded(_dilated(framed, disk), disk)
    height, width = kept.shape[1:]
    filled = fill_slices(closed[:, room : room + height, room : room + width])
    return _eroded(filled, _SQUARE)


def _refine(
    array: NDArray[Any],
    kept: NDArray[np.bool_],
    inside: NDArray[np.bool_],
    steps: list[int],
    mask: NDArray[np.bool_],
) -> None:
    """Write the mask on the full grid, slice by slice: inside, or dense and next to the kept coarse pixels."""
    near = _dilated(kept, _SQUARE)  # lost less than a coarse pixel
    height, width = mask.shape[1:]
    for plane, dense, around, within in zip(mask, array, near, inside, strict=True):
        np.greater(dense, AIR_LIMIT_HU, out=plane)
        plane &= _enlarged(around, steps)[:height, :width]
        plane |= _enlarged(within, steps)[:height, :width]


def _enlarged(plane: NDArray[np.bool_], steps: list[int]) -> NDArray[np.bool_]:
    return plane.repeat(steps[1], axis=1).repeat(steps[0], axis=0)


def _large_components(mask: NDArray[np.bool_], core: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Components with a voxel of ``core`` (any component when there is none) that are not small beside the largest."""
    labels, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.zeros(count + 1, dtype=np.int64)
    for plane in labels:  # of the whole, bincount would make a copy of eight bytes per voxel
        sizes += np.bincount(plane.ravel(), minlength=count + 1)
    sizes[0] = 0
    thick = np.bincount(labels[core], minlength=count + 1) > 0
    if thick.any():
        sizes[~thick] = 0
    large: NDArray[np.bool_] = (sizes >= max(1, _PART_SHARE * sizes.max()))[labels]
    return large


def _eroded(mask: NDArray[np.bool_], element: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Erosion within slices by a symmetric element; what lies beyond the image does not erode."""
    return ~_dilated(~mask, element)


def _dilated(mask: NDArray[np.bool_], element: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Dilation within slices (y, x): shifts of one long row, several times as fast as scipy's for small elements."""
    reach = [side // 2 for side in element.shape]
    padded = np.pad(mask, ((0, 0), (reach[0], reach[0]), (reach[1], reach[1])))  # shifts end in the padding
    source, grown = padded.reshape(-1), padded.copy().reshape(-1)
    for dy, dx in np.argwhere(element) - reach:
        shift = int(dy * padded.shape[2] + dx)
        if shift > 0:
            grown[shift:] |= source[:-shift]
        elif shift < 0:
            grown[:shift] |= source[-shift:]
    height, width = mask.shape[1:]
    return grown.reshape(padded.shape)[:, reach[0] : reach[0] + height, reach[1] : reach[1] + width]


def _disk(radii: list[float]) -> NDArray[np.bool_]:
    """Ellipse of radii (y, x) in pixels as a structuring element (h, w)."""
    reach = [int(np.floor(radius)) for radius in radii]
    y, x = np.ogrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    return (y / max(radii[0], 1e-6)) ** 2 + (x / max(radii[1], 1e-6)) ** 2 <= 1
