"""The channels of a box of a stored case: windows and scalings applied, masked, zero where nothing is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.preprocess.region import Region
from nndet_psma.preprocess.windows import ChannelSource, apply_window

VoxelBox = tuple[int, int, int, int, int, int]
"""``(z0, y0, x0, z1, y1, x1)`` in whole voxels, half-open."""


def region_box(region: Region) -> VoxelBox:
    """Box of a region in store voxels."""
    y0, x0, y1, x1 = (int(v) for v in region.box)
    return int(region.slices[0]), y0, x0, int(region.slices[-1]) + 1, y1, x1


def common_box(first: VoxelBox, second: VoxelBox) -> VoxelBox | None:
    """What two boxes have in common; None where they do not touch."""
    z0, y0, x0 = (max(a, b) for a, b in zip(first[:3], second[:3], strict=True))
    z1, y1, x1 = (min(a, b) for a, b in zip(first[3:], second[3:], strict=True))
    return None if z0 >= z1 or y0 >= y1 or x0 >= x1 else (z0, y0, x0, z1, y1, x1)


def box_slices(box: VoxelBox, origin: Sequence[int] = (0, 0, 0)) -> tuple[slice, slice, slice]:
    """Index of a box in an array whose first voxel is ``origin``."""
    z, y, x = (slice(box[a] - origin[a], box[a + 3] - origin[a]) for a in range(3))
    return z, y, x


def box_channels(
    arrays: dict[str, NDArray[Any]],
    sources: Sequence[ChannelSource],
    box: VoxelBox,
    kept: NDArray[np.bool_] | None,
) -> NDArray[np.float32]:
    """Channels ``[len(sources), z, y, x]`` in [0, 1] of a box that lies within the case.

    Only the box is read from disk, each modality once.

    Args:
        arrays: by modality name, each (z, y, x).
        sources: channel groups, one channel each.
        box: of the store.
        kept: voxels of the box that are kept, others become 0; None keeps all.
    """
    index = box_slices(box)
    read = {name: np.asarray(arrays[name][index]) for name in {source.modality for source in sources}}
    channels = np.stack([apply_window(read[s.modality], s.lower, s.upper) for s in sources])
    if kept is not None:
        channels *= kept
    return channels


def patch_channels(
    arrays: dict[str, NDArray[Any]], sources: Sequence[ChannelSource], patch: VoxelBox, region: Region
) -> NDArray[np.float32] | None:
    """Channels of a patch, which may reach beyond the region: 0 there and where the region's mask keeps nothing.

    None when nothing of the patch is kept, so that there is nothing to find.
    """
    seen = common_box(patch, region_box(region))
    if seen is None:
        return None
    kept = None if region.mask is None else region.mask[box_slices(seen)]
    if kept is not None and not kept.any():
        return None
    sides = [patch[axis + 3] - patch[axis] for axis in range(3)]
    channels = np.zeros((len(sources), *sides), dtype=np.float32)
    channels[(slice(None), *box_slices(seen, patch[:3]))] = box_channels(arrays, sources, seen, kept)
    return channels
