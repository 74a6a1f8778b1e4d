"""3D lesions cut into slice boxes: what a volume detector says, in the form that slice-wise readers take."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.box import box_sizes
from nndet_psma.boxes.detections import Detections

_ROUNDING = 1e-6  # voxels: files hold four decimals, and maps between grids round


def covered_centres(low: NDArray[Any], high: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First slice (or voxel) whose centre lies in each interval, and one after the last; the nearest where none does.

    The one rule that says where a box is: ``low <= index + 0.5 < high``. A box that only touches a slice with its edge
    says nothing about that slice.

    Args:
        low: lower ends in voxel edges, any shape.
        high: upper ends, likewise.
    """
    begin = np.ceil(low - 0.5 - _ROUNDING).astype(np.int64)
    end = np.ceil(high - 0.5 - _ROUNDING).astype(np.int64)
    nearest = np.floor((low + high) / 2).astype(np.int64)
    some = end > begin
    return np.where(some, begin, nearest), np.where(some, end, nearest + 1)


def slice_lesions(
    detections: Detections, spacing: tuple[float, float, float]
) -> tuple[Detections, Detections]:
    """Every lesion on every slice whose centre lies in its box, see :func:`covered_centres`; at least one.

    The slice-wise scores of Xu 2023 then judge a volume detector by the rectangle its box leaves on each slice, with
    the score of the box. Slices below 0 do not exist: a box that lies there is on slice 0.

    Args:
        detections: 3D boxes in voxels.
        spacing: voxel size in mm (z, y, x).

    Returns:
        2D boxes, lesion by lesion and by ascending slice, with the columns of the input, ``slice`` and ``lesion`` (row
        of the 3D box); and the 3D boxes, best score first, with the columns of the input, ``num_slices`` and
        ``extent_mm`` (``[N, 3]`` side lengths z, y, x).

    Raises:
        ValueError: not 3D.
    """
    if detections.dim != 3:
        raise ValueError("cutting into slices needs 3D detections")
    lesions = detections.sorted_by_score()
    begin, end = covered_centres(lesions.boxes[:, 0], lesions.boxes[:, 3])
    begin = np.maximum(begin, 0)
    count = np.maximum(end - begin, 1)
    lesion = np.repeat(np.arange(len(lesions)), count)
    step = np.arange(len(lesion)) - np.repeat(np.cumsum(count) - count, count)
    cut = lesions.select(lesion)
    slices = Detections(
        cut.boxes[:, [1, 2, 4, 5]],
        cut.scores,
        cut.labels,
        {**cut.columns, "slice": begin[lesion] + step, "lesion": lesion.astype(np.int64)},
    )
    extent = box_sizes(lesions.boxes) * np.array(spacing)
    return slices, lesions.with_columns(num_slices=count, extent_mm=extent)
