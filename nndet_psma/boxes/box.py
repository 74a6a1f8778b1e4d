"""Axis-aligned boxes: the one convention of this package and the conversions at its borders.

A box is a row ``(lower corner, upper corner)`` in array-axis order: ``(z0, y0, x0, z1, y1, x1)`` in 3D and
``(y0, x0, y1, x1)`` in 2D, float, in voxels. Coordinates are *voxel edges*: voxel ``i`` spans ``[i, i + 1)``,
so the box of a single voxel ``i`` is ``(i, i + 1)`` and widths are ``upper - lower`` without "+ 1". An array of
boxes has shape ``[N, 2 * dim]``; no boxes is ``[0, 2 * dim]``.

nnDetection orders ``(a0_min, a1_min, a0_max, a1_max, a2_min, a2_max)`` and makes boxes from masks as
``min_index - 1 .. max_index + 1`` (one voxel longer than the object); torchvision orders ``(x0, y0, x1, y1)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

Boxes = NDArray[np.float64]

OVERHANG = 0.1
"""Share of an image's side, beside one voxel, that a box of a file may reach beyond the image.

Frameworks round the shape of a resampled image by at most half a voxel of it, which is less than this share from 5
voxels on; nnDetection's boxes are a voxel longer than the object.
"""


_NNDET_FROM_OURS = {4: [0, 1, 2, 3], 6: [0, 1, 3, 4, 2, 5]}
_OURS_FROM_NNDET = {4: [0, 1, 2, 3], 6: [0, 1, 4, 2, 3, 5]}


def empty_boxes(dim: int) -> Boxes:
    """No boxes, shape ``[0, 2 * dim]``."""
    return np.zeros((0, 2 * dim), dtype=np.float64)


def box_sizes(boxes: Boxes) -> Boxes:
    """Side lengths ``[N, dim]`` in voxels."""
    dim = boxes.shape[1] // 2
    return boxes[:, dim:] - boxes[:, :dim]


def box_centres(boxes: Boxes) -> Boxes:
    """Centres ``[N, dim]`` in voxel-edge coordinates."""
    dim = boxes.shape[1] // 2
    return (boxes[:, dim:] + boxes[:, :dim]) / 2


def box_volumes(boxes: Boxes) -> NDArray[np.float64]:
    """Volumes ``[N]`` (areas in 2D) in voxels; a box with a negative side counts 0."""
    volumes: NDArray[np.float64] = np.prod(np.clip(box_sizes(boxes), 0, None), axis=1)
    return volumes


def pairwise_intersection(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Volume of the overlap of every pair, shape ``[N, M]``, in voxels."""
    dim = first.shape[1] // 2
    lower = np.maximum(first[:, None, :dim], second[None, :, :dim])
    upper = np.minimum(first[:, None, dim:], second[None, :, dim:])
    shared: NDArray[np.float64] = np.prod(np.clip(upper - lower, 0, None), axis=2)
    return shared


def pairwise_iou(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Intersection over union of every pair, shape ``[N, M]``; 0 where both boxes are empty."""
    overlap = pairwise_intersection(first, second)
    union = box_volumes(first)[:, None] + box_volumes(second)[None, :] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def clip_boxes(boxes: Boxes, shape: tuple[int, ...]) -> Boxes:
    """Boxes cut to an array of ``shape`` (voxels)."""
    limit = np.array([*shape, *shape], dtype=np.float64)
    return np.clip(boxes, 0, limit)


def reach_outside(boxes: Boxes, shape: Sequence[float]) -> NDArray[np.bool_]:
    """Whether each box ``[N]`` reaches so far beyond an array of ``shape`` that it belongs to another one, or has its
    corners in another order; see :data:`OVERHANG`.
    """
    dim = len(shape)
    sides = np.array(shape, dtype=np.float64)
    allowed = OVERHANG * sides + 1
    low, high = boxes[:, :dim] < -allowed, boxes[:, dim:] > sides + allowed
    return np.asarray((low | high).any(axis=1))


def boxes_from_instances(instances: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], Boxes]:
    """Tight boxes of the instances of an id mask.

    Args:
        instances: integer array of any dimension, 0 or negative = background.

    Returns:
        ids ``[N]`` ascending, boxes ``[N, 2 * dim]``; ids that do not occur have no row.
    """
    dim = instances.ndim
    ids, boxes = [], []
    for index, slices in enumerate(ndimage.find_objects(np.maximum(instances, 0)), start=1):
        if slices is not None:
            ids.append(index)
            boxes.append([*(s.start for s in slices), *(s.stop for s in slices)])
    if not ids:
        return np.zeros(0, dtype=np.int64), empty_boxes(dim)
    return np.array(ids, dtype=np.int64), np.array(boxes, dtype=np.float64)


def to_nndetection(boxes: Boxes, extra: ArrayLike = 1.0) -> Boxes:
    """Our boxes in nnDetection's order and extent: lower corners one voxel lower (``min_index - 1``).

    Args:
        boxes: ``[N, 2 * dim]``.
        extra: voxels that nnDetection's boxes are longer, one number or one per axis; 0 changes the order alone.
    """
    dim = boxes.shape[1] // 2
    widened = boxes.copy()
    widened[:, :dim] -= np.asarray(extra)
    return widened[:, _NNDET_FROM_OURS[2 * dim]]


def from_nndetection(boxes: Boxes, extra: ArrayLike = 1.0) -> Boxes:
    """Inverse of :func:`to_nndetection`."""
    dim = boxes.shape[1] // 2
    ours = np.asarray(boxes, dtype=np.float64)[:, _OURS_FROM_NNDET[2 * dim]]
    ours[:, :dim] += np.asarray(extra)
    return ours


def to_torchvision(boxes: Boxes) -> Boxes:
    """2D boxes ``(y0, x0, y1, x1)`` as torchvision's ``(x0, y0, x1, y1)``."""
    return boxes[:, [1, 0, 3, 2]]


def from_torchvision(boxes: Boxes) -> Boxes:
    """Inverse of :func:`to_torchvision` (the permutation is its own inverse)."""
    return boxes[:, [1, 0, 3, 2]]
