"""Reject boxes that are too small or too large in millimetres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.box import box_sizes
from nndet_psma.boxes.detections import Detections


def in_plane_axes(
    detections: Detections, spacing: tuple[float, float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longer and shorter in-plane side of every box, mm, ``[N]`` each; of 3D boxes the sides along y and x.

    They stand for long and short axis of a node: a box does not know how the node lies in it.
    """
    sides = box_sizes(detections.boxes)[:, -2:] * np.array(spacing[1:])
    return sides.max(axis=1), sides.min(axis=1)


def shortest_sides(detections: Detections, spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    """Shortest side ``[N]`` of every box, mm; of slice boxes the shorter of the two."""
    sides = box_sizes(detections.boxes) * np.array(spacing[-detections.dim :])
    shortest: NDArray[np.float64] = sides.min(axis=1)
    return shortest


def size_filter(
    detections: Detections,
    spacing: tuple[float, float, float],
    *,
    min_size_mm: float | None = None,
    max_size_mm: float | None = None,
    min_short_axis_mm: float | None = None,
    min_extent_mm: float | None = None,
) -> NDArray[np.bool_]:
    """Which boxes ``[N]`` to keep: longer side within ``min_size_mm`` and ``max_size_mm``, shorter one long enough.

    These are in-plane sides, also of 3D boxes; ``min_extent_mm`` asks the side along z, too.

    Limits belong to what is kept. A slice box is judged by what its slice shows: the first and the last slice of a node
    show less of it. Placed behind the linking, the filter judges whole lesions.

    Args:
        detections: 2D or 3D, in voxels.
        spacing: voxel size in mm (z, y, x).
        min_size_mm: shortest longer side; ``None``: any.
        max_size_mm: longest longer side; ``None``: any.
        min_short_axis_mm: shortest shorter side; ``None``: any.
        min_extent_mm: shortest side of all; ``None``: any.
    """
    long, short = in_plane_axes(detections, spacing)
    keep = np.ones(len(detections), dtype=bool)
    if min_size_mm is not None:
        keep &= long >= min_size_mm
    if max_size_mm is not None:
        keep &= long <= max_size_mm
    if min_short_axis_mm is not None:
        keep &= short >= min_short_axis_mm
    if min_extent_mm is not None:
        keep &= shortest_sides(detections, spacing) >= min_extent_mm
    return keep
