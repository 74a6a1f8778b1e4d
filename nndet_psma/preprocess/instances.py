"""Lesions and CTV on the store grid: none may vanish between coarser voxels without being named."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nndet_psma.core.errors import UserError
from nndet_psma.preprocess.grid import StoreGrid, mask_on

_MOST = 32767  # int16
_AROUND = np.array(list(product((-1, 0, 1), repeat=3)))


def instances_on(ids: NDArray[Any], grid: StoreGrid) -> tuple[NDArray[np.int16], list[int]]:
    """Instance ids on the store, and the ids that found no place there.

    A lesion that no store voxel's centre hits gets one voxel: the one that holds the middle of the lesion, or, where
    that belongs to another lesion, the nearest free neighbour. It finds no place when it lies outside the
    store (outside the body) or all neighbours are taken.

    Args:
        ids: instance ids (z, y, x) on the file's grid, 0 background.
        grid: the store.

    Raises:
        UserError: an id is too large.
    """
    places = ndimage.find_objects(ids)
    if len(places) > _MOST:
        raise UserError("an instance id is too large", expected=f"at most {_MOST}", found=str(len(places)))
    found = mask_on(ids, grid).astype(np.int16, copy=False)
    kept = {i for i, place in enumerate(ndimage.find_objects(found), start=1) if place is not None}
    lost = []
    for instance, place in enumerate(places, start=1):
        if place is None or instance in kept:
            continue
        corner = [part.start for part in place]
        voxels = np.argwhere(ids[place] == instance) + corner
        if not _place(found, instance, grid.to_store(voxels + 0.5), grid.geometry.spacing):
            lost.append(instance)
    return found, lost


def ctv_on(mask: NDArray[Any], grid: StoreGrid) -> NDArray[np.bool_]:
    """CTV on the store; one that falls between the centres of coarser voxels keeps the voxels that hold it.

    All False when no part of the CTV lies on the store (outside the body).
    """
    found = mask_on(mask, grid) > 0
    if found.any() or grid.is_crop:
        return found
    z, y, x = (slice(a, b) for a, b in zip(grid.lower, grid.upper, strict=True))
    voxels = np.argwhere(mask[z, y, x] > 0) + grid.lower
    index = np.floor(grid.to_store(voxels + 0.5)).astype(np.int64)
    found[tuple(index.T)] = True
    return found


def _place(
    found: NDArray[np.int16], instance: int, centres: NDArray[np.float64], spacing: tuple[float, float, float]
) -> bool:
    """Give ``instance`` one free voxel at or next to its middle; whether there was one."""
    inside = ((centres >= 0) & (centres < found.shape)).all(axis=1)
    if not inside.any():
        return False
    middle = centres[inside].mean(axis=0)
    candidates = np.floor(middle).astype(np.int64) + _AROUND
    candidates = candidates[((candidates >= 0) & (candidates < found.shape)).all(axis=1)]
    away = np.linalg.norm((candidates + 0.5 - middle) * spacing, axis=1)
    away[(candidates == np.floor(middle)).all(axis=1)] = -1  # the voxel that holds the middle comes first
    for voxel in candidates[np.argsort(away, kind="stable")]:
        if found[tuple(voxel)] == 0:
            found[tuple(voxel)] = instance
            return True
    return False
