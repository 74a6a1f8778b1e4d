"""3D lesions cut into slice boxes: what a volume detector says, in the form that slice-wise readers take."""

from __future__ import annotations

import numpy as np

from nndet_psma.boxes.box import box_sizes
from nndet_psma.boxes.detections import Detections


def slice_lesions(
    detections: Detections, spacing: tuple[float, float, float]
) -> tuple[Detections, Detections]:
    """Every lesion on every slice that it touches: ``floor(z0) <= slice < ceil(z1)``, at least one.

    The slice-wise scores of Xu 2023 then judge a volume detector by the rectangle its box leaves on each slice, with
    the score of the box. Slices below 0 do not exist and are left out.

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
    begin = np.maximum(np.floor(lesions.boxes[:, 0]), 0).astype(np.int64)
    end = np.maximum(np.ceil(lesions.boxes[:, 3]).astype(np.int64), begin + 1)
    count = end - begin
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
