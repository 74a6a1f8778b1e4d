"""What the filters ask about a box: how far it lies outside the CTV, and its HU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.detector_plan import DetectorPlan
from nndet_psma.boxes.box import Boxes, box_centres
from nndet_psma.boxes.detections import Detections
from nndet_psma.postproc.steps.box_slicing import covered_centres
from nndet_psma.postproc.steps.hu_filter import QUANTILES
from nndet_psma.preprocess.prepare import PreparedCase


def with_evidence(detections: Detections, case: PreparedCase, plan: DetectorPlan) -> Detections:
    """Add the columns ``zone_mm`` (mm outside the CTV) and ``hu_quantiles`` ([N, 10], NaN without CT).

    Args:
        detections: boxes on the store grid, 2D with column ``slice`` or 3D.
        case: the prepared case.
        plan: names the CT.
    """
    quantiles = np.full((len(detections), len(QUANTILES)), np.nan, dtype=np.float32)
    if plan.ct_name is not None and len(detections):
        volume = case.arrays[plan.ct_name]
        quantiles = (
            volume_quantiles(volume, detections.boxes)
            if detections.dim == 3
            else box_quantiles(volume, detections.columns["slice"], detections.boxes)
        )
    return detections.with_columns(zone_mm=case.zone_mm(_centres(detections)), hu_quantiles=quantiles)


def _centres(detections: Detections) -> NDArray[np.float64]:
    """Centres ``[N, 3]`` in voxel edges; of 2D boxes in the middle of their slice."""
    centres = box_centres(detections.boxes)
    if detections.dim == 3:
        return centres
    return np.column_stack([detections.columns["slice"] + 0.5, centres])


def box_quantiles(volume: NDArray[Any], slices: NDArray[np.int64], boxes: Boxes) -> NDArray[np.float32]:
    """Quantiles of the voxels whose centre lies in each box, ``[N, 10]``, interpolated linearly as ``numpy.quantile``.

    Voxels that a box only touches are left out: beside a vessel, a box 0.4 voxels too large would take its brightness.
    Along an axis on which a box holds no centre, the voxel nearest to its middle counts.

    NumPy's function takes longer to start than the few voxels of a node take to sort, so only the sorting is done
    box by box.

    Args:
        volume: (z, y, x).
        slices: z of every box.
        boxes: ``[N, 4]`` within the volume, voxels.
    """
    lower, upper = covered_centres(boxes[:, :2], boxes[:, 2:])
    values = [
        np.sort(volume[z, y0:y1, x0:x1], axis=None)
        for z, (y0, x0), (y1, x1) in zip(slices.tolist(), lower.tolist(), upper.tolist(), strict=True)
    ]
    return _quantiles(values)


def volume_quantiles(volume: NDArray[Any], boxes: Boxes) -> NDArray[np.float32]:
    """:func:`box_quantiles` of 3D boxes, ``[N, 10]``.

    Args:
        volume: (z, y, x).
        boxes: ``[N, 6]`` within the volume, voxels.
    """
    lower, upper = covered_centres(boxes[:, :3], boxes[:, 3:])
    return _quantiles(
        [
            np.sort(volume[z0:z1, y0:y1, x0:x1], axis=None)
            for (z0, y0, x0), (z1, y1, x1) in zip(lower.tolist(), upper.tolist(), strict=True)
        ]
    )


def _quantiles(values: list[NDArray[Any]]) -> NDArray[np.float32]:
    """Quantiles ``[N, 10]`` of the sorted values of every box."""
    counts = np.array([len(of_box) for of_box in values])
    flat = np.concatenate(values).astype(np.float64)  # int16 differences could overflow
    start = (np.cumsum(counts) - counts)[:, None]
    position = np.array(QUANTILES) * (counts - 1)[:, None]
    before = np.floor(position).astype(np.int64)
    after = np.minimum(before + 1, counts[:, None] - 1)
    low, high, share = flat[start + before], flat[start + after], position - before
    step = high - low
    # from the nearer end, as NumPy does: the result never leaves the interval by rounding
    found: NDArray[np.float64] = np.where(share < 0.5, low + step * share, high - step * (1 - share))
    return found.astype(np.float32)
