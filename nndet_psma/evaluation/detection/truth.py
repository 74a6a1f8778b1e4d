"""What is really there in a case: lesions measured in the instance mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nndet_psma.boxes.box import Boxes, boxes_from_instances, empty_boxes
from nndet_psma.core.errors import UserError
from nndet_psma.planners.fingerprint.ctv_distance import CtvDistance
from nndet_psma.planners.fingerprint.lesion_shape import in_plane_shape


@dataclass(frozen=True)
class Truth:
    """What is really there in one case, on the grid of the detections.

    Attributes:
        labels: ``[L]`` class index of each lesion.
        boxes: ``[L, 6]`` boxes of the lesions, voxel edges (z0, y0, x0, z1, y1, x1).
        slice_indices: ``[S]`` axial slice (z) of each 2D box; a lesion has one 2D box on every slice it touches.
        slice_lesions: ``[S]`` row of ``boxes`` that the 2D box belongs to.
        slice_boxes: ``[S, 4]`` voxel edges (y0, x0, y1, x1).
        num_slices: axial slices of the case; slice indices lie in ``[0, num_slices)``.
        volumes_mm3: ``[L]`` volumes, if known.
        short_axes_mm: ``[L]`` short axes, if measured.
        spacing: mm along (z, y, x), if known.
        outside_ctv_mm: ``[L]`` how far each reaches out of the CTV, 0 within; None without CTV.
        stations: ``[L]`` anatomical names, None where not given; None when none is.

    Raises:
        ValueError: lengths differ, or an index points outside.
    """

    labels: NDArray[np.int64]
    boxes: Boxes
    slice_indices: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    slice_lesions: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    slice_boxes: Boxes = field(default_factory=lambda: empty_boxes(2))
    num_slices: int = 0
    volumes_mm3: Sequence[float] | None = None
    short_axes_mm: Sequence[float] | None = None
    spacing: tuple[float, float, float] | None = None
    outside_ctv_mm: Sequence[float] | None = None
    stations: Sequence[str | None] | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.labels), len(self.boxes)}
        lengths |= {len(column) for column in self._optional() if column is not None}
        if len(lengths) != 1:
            raise ValueError(f"lesion columns have different lengths: {sorted(lengths)}")
        if not len(self.slice_indices) == len(self.slice_lesions) == len(self.slice_boxes):
            raise ValueError("slice_indices, slice_lesions and slice_boxes have different lengths")
        check_range("slice_indices", self.slice_indices, self.num_slices)
        check_range("slice_lesions", self.slice_lesions, len(self.boxes))

    def _optional(self) -> tuple[Sequence[Any] | None, ...]:
        return self.volumes_mm3, self.short_axes_mm, self.outside_ctv_mm, self.stations


def truth_from_instances(
    instances: NDArray[np.integer[Any]],
    classes: Mapping[int, int],
    spacing: tuple[float, float, float],
    *,
    short_axes_mm: Mapping[int, float] | None = None,
    ctv: NDArray[Any] | None = None,
    stations: Mapping[int, str] | None = None,
) -> Truth:
    """Truth of a case from its instance mask; lesions in ascending order of their ids.

    A lesion in several pieces on one slice gets one 2D box round all of them.

    Args:
        instances: integers ``[z, y, x]``, 0 = background.
        classes: instance id to class index.
        spacing: mm along (z, y, x).
        short_axes_mm: instance id to its short axis; None measures it in the mask
            (:func:`~nndet_psma.planners.fingerprint.lesion_shape.in_plane_shape`).
        ctv: mask ``[z, y, x]`` of the search region; None, or empty, when there is none.
        stations: instance id to its anatomical name.

    Raises:
        UserError: an instance of the mask has no class, or an instance with a class is not in the mask.
    """
    ids, boxes = boxes_from_instances(instances)
    if set(ids.tolist()) != set(classes):
        raise UserError(
            "instances of the mask and of the class table differ",
            expected=f"ids {sorted(classes)}",
            found=f"ids {ids.tolist()} in the mask",
            remedy="Correct the case's .json or its label image",
        )
    volumes, short_axes, slice_rows, slice_boxes = [], [], [], []
    distance = _ctv_distance(ctv, spacing)
    outside: list[float] = []
    for row, (instance, box) in enumerate(zip(ids, boxes.astype(int), strict=True)):
        crop = instances[box[0] : box[3], box[1] : box[4], box[2] : box[5]] == instance
        volumes.append(float(crop.sum() * np.prod(spacing)))
        short_axes.append(
            in_plane_shape(crop, spacing).short_axis_mm
            if short_axes_mm is None
            else short_axes_mm[int(instance)]
        )
        if distance is not None:
            outside.append(distance.reach(np.argwhere(crop) + box[:3])[0])
        for z in np.flatnonzero(crop.any(axis=(1, 2))):
            flat_box = boxes_from_instances(crop[z].astype(np.uint8))[1][0]
            slice_rows.append((box[0] + z, row))
            slice_boxes.append(flat_box + box[[1, 2, 1, 2]])
    rows = np.array(slice_rows, dtype=np.int64).reshape(-1, 2)
    return Truth(
        labels=np.array([classes[int(instance)] for instance in ids], dtype=np.int64),
        boxes=boxes,
        slice_indices=rows[:, 0],
        slice_lesions=rows[:, 1],
        slice_boxes=np.array(slice_boxes, dtype=np.float64).reshape(-1, 4),
        num_slices=instances.shape[0],
        volumes_mm3=volumes,
        short_axes_mm=short_axes,
        spacing=spacing,
        outside_ctv_mm=None if distance is None else outside,
        stations=None if stations is None else [stations.get(int(instance)) for instance in ids],
    )


def _ctv_distance(ctv: NDArray[Any] | None, spacing: tuple[float, float, float]) -> CtvDistance | None:
    if ctv is None or not ctv.any():
        return None
    parts = ndimage.find_objects((ctv > 0).astype(np.uint8))[0]
    corner = np.array([part.start for part in parts], dtype=np.int64)
    return CtvDistance(ctv[parts] > 0, corner, spacing)


def check_range(name: str, values: NDArray[np.int64], limit: int) -> None:
    """Indices must lie in ``[0, limit)``.

    Raises:
        ValueError: one does not.
    """
    if len(values) and not (values.min() >= 0 and values.max() < limit):
        raise ValueError(f"{name} must lie in [0, {limit}), got {values.min()} to {values.max()}")
