"""Ellipsoids in boxes: what is taken for an object of which only its box is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def ellipsoid_mask(boxes: Sequence[Sequence[float]], shape: tuple[int, int, int]) -> NDArray[np.uint16]:
    """Numbers from 1 of the ellipsoids that touch all faces of the boxes; where two overlap, the earlier one's.

    Args:
        boxes: ``(z0, y0, x0, z1, y1, x1)`` voxel edges, best first.
        shape: of the image (z, y, x).

    Returns:
        a mask in which an ellipsoid has the voxels whose centres lie in it, at least the one nearest to its middle that
        lies in the image; a box that others cover wholly has none.
    """
    mask = np.zeros(shape, dtype=np.uint16)
    for number in range(len(boxes), 0, -1):
        box = np.asarray(boxes[number - 1], dtype=np.float64)
        middle, radii = (box[:3] + box[3:]) / 2, np.maximum((box[3:] - box[:3]) / 2, 1e-6)
        lower = np.clip(np.floor(box[:3]), 0, np.array(shape) - 1).astype(int)
        upper = np.clip(np.ceil(box[3:]), lower + 1, shape).astype(int)
        lines = [
            (np.arange(a, b) + 0.5 - m) / r for a, b, m, r in zip(lower, upper, middle, radii, strict=True)
        ]
        z, y, x = np.ix_(*lines)
        inside = z**2 + y**2 + x**2 <= 1
        part = mask[tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))]
        part[inside] = number
        nearest = np.clip(np.floor(middle), 0, np.array(shape) - 1).astype(int)
        mask[tuple(nearest)] = number
    return mask
