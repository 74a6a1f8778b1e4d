"""Sizes of a lesion as a radiologist measures them: in its axial slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class InPlaneShape:
    """Of one lesion, mm.

    Attributes:
        long_axis_mm: longest in-plane diameter of all axial slices.
        short_axis_mm: longest extent perpendicular to it in the same slice.
        slice_sizes_mm: tight (height, width) of every slice it touches, in slice order.
    """

    long_axis_mm: float
    short_axis_mm: float
    slice_sizes_mm: list[tuple[float, float]]


def in_plane_shape(mask: NDArray[np.bool_], spacing: tuple[float, float, float]) -> InPlaneShape:
    """Diameters of a lesion and the boxes of its slices.

    The diameter is the longest distance of two voxel corners of a slice (the RECIST diameter); the short axis is the
    longest straight section of the convex hull of the slice at right angles to that diameter. Corners, not centres:
    one voxel has the size of a voxel. Lengths of a shape drawn on voxels are wrong by up to one voxel diagonal; a dent
    is bridged, so the short axis of a bent lesion is an upper bound.

    Args:
        mask: the lesion (z, y, x), not empty.
        spacing: mm (z, y, x).
    """
    boxes = [_plane_box(plane) for plane in mask]
    sizes = [None if b is None else ((b[2] - b[0]) * spacing[1], (b[3] - b[1]) * spacing[2]) for b in boxes]
    long, short = 0.0, 0.0
    # the diagonal of a slice's box is an upper bound of its diameter: most slices need no hull
    for diagonal, index in sorted(((float(np.hypot(*s)), i) for i, s in enumerate(sizes) if s), reverse=True):
        if diagonal < long:
            break
        diameter, across = plane_axes(mask[index], (spacing[1], spacing[2]))
        if (diameter, across) > (long, short):
            long, short = diameter, across
    return InPlaneShape(long, short, [size for size in sizes if size is not None])


def plane_axes(plane: NDArray[np.bool_], spacing: tuple[float, float]) -> tuple[float, float]:
    """Longest diameter of a mask ``(y, x)`` that is not empty, and the extent perpendicular to it, both mm.

    Of equally long diameters the one with the larger perpendicular extent counts. ``spacing`` is mm (y, x).
    """
    hull = _hull(_row_ends(plane) * spacing)
    steps = hull[:, None] - hull[None]
    lengths = np.hypot(steps[..., 0], steps[..., 1])
    longest = float(lengths.max())
    ties = np.argwhere(np.triu(lengths >= longest * (1 - 1e-9)))
    return longest, max(_widest_section(hull, steps[i, j] / longest) for i, j in ties)


def _plane_box(plane: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Tight box ``(y0, x0, y1, x1)``; None of an empty plane."""
    rows = np.flatnonzero(plane.any(axis=1))
    if len(rows) == 0:
        return None
    columns = np.flatnonzero(plane.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _row_ends(plane: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Four corners ``[N, 2]`` of the stretch from the first to the last voxel of every row: enough for the hull."""
    rows = np.flatnonzero(plane.any(axis=1))
    left, right = plane[rows].argmax(axis=1), plane.shape[1] - plane[rows, ::-1].argmax(axis=1)
    corners = [np.stack([y, x], axis=1) for y in (rows, rows + 1) for x in (left, right)]
    return np.concatenate(corners).astype(np.float64)


def _hull(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners of the convex hull of points that do not lie on one line, in order around it."""
    from scipy.spatial import ConvexHull

    corners: NDArray[np.float64] = points[ConvexHull(points).vertices]
    return corners


def _widest_section(hull: NDArray[np.float64], direction: NDArray[np.float64]) -> float:
    """Longest section of a convex polygon at right angles to the unit vector ``direction``.

    Along ``direction`` the length of the section is concave and bends at corners only, so it is largest at one.
    """
    along = hull @ direction
    across = hull @ np.array([-direction[1], direction[0]])
    first, last = int(np.argmin(along)), int(np.argmax(along))
    one, other = _between(first, last, len(hull)), _between(last, first, len(hull))[::-1]
    height = [np.interp(along, along[chain], across[chain]) for chain in (one, other)]
    return float(np.abs(height[0] - height[1]).max())


def _between(start: int, stop: int, count: int) -> NDArray[np.int64]:
    """Indices around a ring of ``count`` from ``start`` to ``stop``, both included."""
    return (start + np.arange((stop - start) % count + 1)) % count
