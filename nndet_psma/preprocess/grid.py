"""The grid of the store and the way of arrays onto it: crop, then resample along the axes of the file.

The store keeps the axes of the (canonical) file, so resampling is three independent one-dimensional steps. They run
slice by slice on the type of the file: no second copy of a volume is ever made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.geometry import Geometry

_SPACING_TOLERANCE = 0.01  # relative; below it a case keeps its own grid


@dataclass(frozen=True)
class StoreGrid:
    """A box of the file's voxels, divided anew.

    Attributes:
        source: canonical grid of the file.
        lower: first voxel of the box (z, y, x).
        upper: end of the box (z, y, x), exclusive.
        geometry: grid of the store; its outer edges are those of the box.
    """

    source: Geometry
    lower: tuple[int, int, int]
    upper: tuple[int, int, int]
    geometry: Geometry

    @property
    def is_crop(self) -> bool:
        """Whether store voxels are file voxels."""
        return all(self._size(axis) == self.geometry.shape[axis] for axis in range(3))

    def nearest(self, axis: int) -> NDArray[np.int64]:
        """File voxel that holds the centre of every store voxel along ``axis``; whole numbers, so never off by one."""
        steps = 2 * np.arange(self.geometry.shape[axis]) + 1
        return self.lower[axis] + steps * self._size(axis) // (2 * self.geometry.shape[axis])

    def linear(self, axis: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """File voxels before and after the centre of every store voxel, and the weight of the latter.

        Neighbours beyond the box are used, beyond the file the outermost voxel is repeated.
        """
        count, size = self.geometry.shape[axis], self._size(axis)
        centres = self.lower[axis] + (np.arange(count) + 0.5) * size / count - 0.5
        before = np.floor(centres).astype(np.int64)
        last = self.source.shape[axis] - 1
        weight = (centres - before).astype(np.float32)
        return np.clip(before, 0, last), np.clip(before + 1, 0, last), weight

    def to_store(self, voxels: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Voxel-edge coordinates of the file ``[N, 3]`` in store voxels."""
        box = np.subtract(self.upper, self.lower)
        return (np.asarray(voxels, dtype=np.float64) - self.lower) * self.geometry.shape / box

    def _size(self, axis: int) -> int:
        return self.upper[axis] - self.lower[axis]


def store_grid(source: Geometry, box: NDArray[np.int64], spacing: tuple[float, float, float]) -> StoreGrid:
    """Grid of about ``spacing`` whose outer edges are those of ``box``.

    The spacing is changed a little so that whole voxels fit; within 1 % of the file's own the voxels are kept. An
    axis with a single voxel is kept: there is nothing between slices to interpolate (2D data).

    Args:
        source: canonical grid of the file.
        box: ``(z0, y0, x0, z1, y1, x1)`` in whole voxels of ``source``.
        spacing: planned, mm (z, y, x).
    """
    crop = crop_geometry(source, box)
    counts = np.array(crop.shape)
    ratio = np.array(crop.spacing) / np.array(spacing)
    ratio[(np.abs(ratio - 1) <= _SPACING_TOLERANCE) | (counts == 1)] = 1.0
    shape = np.maximum(np.rint(counts * ratio), 1)
    new_spacing = np.array(crop.spacing) * counts / shape
    kept = shape == counts
    new_spacing[kept] = np.array(crop.spacing)[kept]  # not a rounding error away from the file's
    first_centre = crop.to_patient((0.5 * counts / shape)[None])[0]
    geometry = replace(crop, shape=_whole(shape), spacing=_triple(new_spacing), origin=_triple(first_centre))
    return StoreGrid(source, _whole(box[:3]), _whole(box[3:]), geometry)


def crop_geometry(geometry: Geometry, box: NDArray[np.int64]) -> Geometry:
    """Grid of the part ``box`` (voxel edges) of ``geometry``."""
    origin = geometry.to_patient(box[None, :3] + 0.5)[0]
    return replace(geometry, shape=_whole(box[3:] - box[:3]), origin=_triple(origin))


def mask_box(mask: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    """Tight box ``(z0, y0, x0, z1, y1, x1)`` of a mask (z, y, x); None when it is empty."""
    in_plane = np.asarray(mask.any(axis=0))
    hits = [np.flatnonzero(mask.any(axis=(1, 2))), *(np.flatnonzero(in_plane.any(axis=a)) for a in (1, 0))]
    if len(hits[0]) == 0:
        return None
    return np.array([*(hit[0] for hit in hits), *(hit[-1] + 1 for hit in hits)], dtype=np.int64)


def mask_on(array: NDArray[Any], grid: StoreGrid) -> NDArray[Any]:
    """A mask or ids on the store: the file voxel that holds the centre of each store voxel; keeps the type."""
    rows, columns = grid.nearest(1), grid.nearest(2)
    found = np.empty(grid.geometry.shape, dtype=array.dtype)
    for index, z in enumerate(grid.nearest(0)):
        found[index] = (
            array[z][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            if grid.is_crop
            else (array[z].take(rows, axis=0).take(columns, axis=1))
        )
    return found


def ct_on(array: NDArray[Any], grid: StoreGrid) -> NDArray[np.int16]:
    """A CT on the store as int16 HU, rounded; linear where the grid is another."""
    if grid.is_crop and array.dtype == np.int16:
        return mask_on(array, grid)
    found = np.empty(grid.geometry.shape, dtype=np.int16)
    for index, plane in enumerate(_planes(array, grid)):
        found[index] = np.clip(np.rint(plane), -32768, 32767)
    return found


def image_on(array: NDArray[Any], grid: StoreGrid) -> NDArray[np.float32]:
    """An image on the store as float32; linear where the grid is another."""
    found = np.empty(grid.geometry.shape, dtype=np.float32)
    for index, plane in enumerate(_planes(array, grid)):
        found[index] = plane
    return found


def _planes(array: NDArray[Any], grid: StoreGrid) -> Iterator[NDArray[Any]]:
    """Store slices, float32 unless the whole grid is the file's."""
    if grid.is_crop:
        _, rows, columns = (slice(a, b) for a, b in zip(grid.lower, grid.upper, strict=True))
        yield from (array[z, rows, columns] for z in range(grid.lower[0], grid.upper[0]))
        return
    for before, after, weight in zip(*grid.linear(0), strict=True):
        plane = array[before].astype(np.float32)
        if weight > 0:
            plane += weight * (array[after].astype(np.float32) - plane)
        yield _along(_along(plane, grid, 1), grid, 2)


def _along(plane: NDArray[np.float32], grid: StoreGrid, axis: int) -> NDArray[np.float32]:
    """One in-plane axis (1: y, 2: x) of a file slice taken to the store."""
    before, after, weight = grid.linear(axis)
    found = plane.take(before, axis=axis - 1)
    if not weight.any():
        return found
    found += (weight[:, None] if axis == 1 else weight) * (plane.take(after, axis=axis - 1) - found)
    return found


def _triple(values: NDArray[Any]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _whole(values: NDArray[Any]) -> tuple[int, int, int]:
    return int(values[0]), int(values[1]), int(values[2])
