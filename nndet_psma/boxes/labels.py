"""Which voxels are one node: connected components, or the instances that a mask gives."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.errors import UserError

Connectivity = Literal[6, 18, 26]
CONNECTIVITY: Connectivity = 26
"""Voxels that share a face, an edge or a corner are one node ("a cluster of contiguous voxels", dwi2022)."""

_ORDER = {6: 1, 18: 2, 26: 3}


def node_components(
    mask: NDArray[Any], connectivity: Connectivity = CONNECTIVITY
) -> tuple[NDArray[np.int32], int]:
    """Number the connected components of everything that is not 0.

    Args:
        mask: (z, y, x).
        connectivity: 26, 18 or 6 neighbours.

    Returns:
        ids (z, y, x), 0 outside, from 1 in the order of their first voxel; and how many there are.

    Raises:
        UserError: another connectivity.
    """
    from scipy import ndimage

    if connectivity not in _ORDER:
        raise UserError("unknown connectivity", expected="6, 18 or 26", found=str(connectivity))
    inside = mask != 0
    ids = np.zeros(mask.shape, dtype=np.int32)
    cut = foreground_box(inside)
    if cut is None:
        return ids, 0
    structure = ndimage.generate_binary_structure(3, _ORDER[connectivity])
    ids[cut], count = ndimage.label(inside[cut], structure, output=np.int32)
    return ids, int(count)


def foreground_box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice] | None:
    """Tight slices round what is not 0 in a mask (z, y, x); None of an empty one."""
    planes = np.flatnonzero(np.any(mask, axis=(1, 2)))
    if len(planes) == 0:
        return None
    z = slice(int(planes[0]), int(planes[-1]) + 1)
    flat = np.any(mask[z], axis=0)
    rows, columns = np.flatnonzero(np.any(flat, axis=1)), np.flatnonzero(np.any(flat, axis=0))
    return z, slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
