"""Geometry of a training patch: one map from store voxels to patch voxels, for images and lesions alike.

Slices turn and mirror in their plane (an axial scan has no other free axis), and one factor scales all axes. The map
is the product of a :class:`~nndet_psma.preprocess.warp.PlaneMap` and a map along z, so that resampling is bilinear in
the slices and linear between them: exactly trilinear, at half the cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nndet_psma.boxes.box import boxes_from_instances
from nndet_psma.preprocess.warp import PlaneMap, warp
from nndet_psma.systems.retina3d.channels import VoxelBox
from nndet_psma.systems.retina3d.plan import Steps
from nndet_psma.trainers.augmentation.draw import AugmentationDraw

_LEAST_SHARE = 0.25  # of a lesion's voxels: a thinner rim at the patch's face is no lesion
Point = tuple[float, float, float]


@dataclass(frozen=True)
class PatchMap:
    """``store = step * patch + offset`` along z, ``plane`` within the slices; voxel edges.

    Attributes:
        plane: in-plane map, its size is the patch's (height, width).
        step: store slices per patch slice.
        offset: of the patch's first slice, in store slices.
        depth: slices of the patch.
    """

    plane: PlaneMap
    step: float
    offset: float
    depth: int

    @property
    def size(self) -> Steps:
        """Sides of the patch (z, y, x)."""
        return self.depth, *self.plane.size

    def to_patch(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Store points ``[N, 3]`` in the patch."""
        return np.column_stack(
            [(points[:, 0] - self.offset) / self.step, self.plane.to_detector(points[:, 1:])]
        )

    def grown(self, margin: int) -> PatchMap:
        """The map of the same patch with ``margin`` more pixels on each side of its slices."""
        height, width = self.plane.size
        plane = self.plane.part((-margin, -margin, height + margin, width + margin))
        return PatchMap(plane, self.step, self.offset, self.depth)

    def footprint(self, box: VoxelBox) -> VoxelBox | None:
        """The part of the store voxels in ``box`` that the patch is interpolated from; None for nothing."""
        y0, x0, y1, x1 = self.plane.footprint((box[1], box[2], box[4], box[5]))
        # half a slice of interpolation, and as much again for rounding
        z0 = max(box[0], int(np.floor(self.offset - 1)))
        z1 = min(box[3], int(np.ceil(self.offset + self.step * self.depth + 1)))
        return None if z0 >= z1 or y0 >= y1 or x0 >= x1 else (z0, y0, x0, z1, y1, x1)


def patch_map(draw: AugmentationDraw, size: Steps, point: Point, place: Point) -> PatchMap:
    """Map that shows the store's ``point`` (z, y, x) at ``place`` in a patch of ``size``, turned and scaled as drawn.

    The draw's ``shift`` is not used: where a patch lies is random anyway.
    """
    angle = np.deg2rad(draw.rotation_degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.diag([1.0, -1.0 if draw.flip else 1.0]) / draw.scale
    plane = PlaneMap(matrix, np.array(point[1:]) - matrix @ np.array(place[1:]), (size[1], size[2]))
    return PatchMap(plane, 1 / draw.scale, point[0] - place[0] / draw.scale, size[0])


def shown_extent(draw: AugmentationDraw, sides: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sides (z, y, x) in the patch of the hull of a box of ``sides`` in the store."""
    angle = np.deg2rad(draw.rotation_degrees)
    turn = np.abs(np.array([[np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]]))
    return np.asarray(np.concatenate([sides[:1], turn @ sides[1:]]) * draw.scale, dtype=np.float64)


def warp_patch(channels: NDArray[np.float32], origin: Steps, mapping: PatchMap) -> Tensor:
    """Resample ``[C, z, y, x]`` whose first voxel is ``origin`` onto the patch, ``[C, depth, height, width]``.

    Trilinear; 0 outside the channels.
    """
    count, slices = channels.shape[:2]
    plane = mapping.plane.cropped((origin[1], origin[2]))
    planes = warp(channels.reshape(-1, *channels.shape[2:]), plane).reshape(count, slices, *plane.size)
    places = (np.arange(mapping.depth) + 0.5) * mapping.step + mapping.offset - origin[0] - 0.5
    lower = np.floor(places).astype(np.int64)
    share = (places - lower).astype(np.float32)
    result = torch.zeros((count, mapping.depth, *plane.size))
    for picks, weights in ((lower, 1 - share), (lower + 1, share)):
        inside = np.flatnonzero((picks >= 0) & (picks < slices) & (weights > 0))
        if len(inside):
            part = planes[:, torch.from_numpy(picks[inside])]
            result[:, torch.from_numpy(inside)] += part.mul_(torch.from_numpy(weights[inside])[:, None, None])
    return result


@dataclass(frozen=True)
class Lesions:
    """What a stage sees of the lesions of a case.

    Attributes:
        ids: ``[N]`` of the instance mask, ascending.
        boxes: ``[N, 6]`` in store voxels.
        centres: ``[N, 3]`` means of their voxels, in voxel edges.
        voxels: ``[N]`` their number.
    """

    ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    centres: NDArray[np.float64]
    voxels: NDArray[np.int64]

    @classmethod
    def of(cls, instances: NDArray[np.integer[Any]], origin: Steps) -> Lesions:
        """Those of an instance mask whose first voxel is ``origin`` in the store."""
        ids, boxes = boxes_from_instances(instances)
        centres, voxels = np.zeros((len(ids), 3)), np.zeros(len(ids), dtype=np.int64)
        for row, (number, box) in enumerate(zip(ids, boxes.astype(np.int64), strict=True)):
            part = instances[tuple(slice(a, b) for a, b in zip(box[:3], box[3:], strict=True))]
            places = np.argwhere(part == number)
            centres[row], voxels[row] = places.mean(axis=0) + 0.5 + box[:3], len(places)
        return cls(ids, boxes + np.tile(origin, 2), centres + origin, voxels)


def warp_instances(
    instances: NDArray[np.integer[Any]], origin: Steps, mapping: PatchMap
) -> NDArray[np.int16]:
    """Nearest-neighbour resampling of ids ``[z, y, x]`` whose first voxel is ``origin`` onto the patch."""
    result = np.zeros(mapping.size, dtype=np.int16)
    places = (np.arange(mapping.depth) + 0.5) * mapping.step + mapping.offset - origin[0]
    picks = np.floor(places).astype(np.int64)
    inside = np.flatnonzero((picks >= 0) & (picks < len(instances)))
    lower_y, lower_x = origin[1:]
    store = lower_y, lower_x, lower_y + instances.shape[1], lower_x + instances.shape[2]
    y0, x0, y1, x1 = view = mapping.plane.view(store)
    if len(inside) and y0 < y1 and x0 < x1:
        plane = mapping.plane.part(view).cropped((lower_y, lower_x))
        warped = warp(instances[picks[inside]].astype(np.float32), plane, nearest=True)
        result[inside, y0:y1, x0:x1] = warped.numpy().astype(np.int16)
    return result


def patch_target(
    shown: NDArray[np.int16], lesions: Lesions, classes: dict[int, int], mapping: PatchMap, *, mask: bool
) -> dict[str, Tensor]:
    """Boxes ``[N, 6]`` float32 and labels ``[N]`` int64 from 0 of a patch, and its "mask" ``[z, y, x]`` uint8.

    A lesion so small that no voxel's centre falls into it keeps the voxel of its own centre. One whose centre lies
    outside and of which the patch shows less than a quarter has no box: a rim cannot be told from its surroundings; its
    voxels stay in the mask.

    Args:
        shown: ids in the patch, see :func:`warp_instances`; may be overwritten.
        lesions: of the case.
        classes: class of every instance, from 0.
        mapping: of the patch.
        mask: whether the mask is wanted.
    """
    places = np.floor(mapping.to_patch(lesions.centres)).astype(np.int64)
    inside = np.all((places >= 0) & (places < np.array(mapping.size)), axis=1)
    found = set(np.unique(shown).tolist())
    for row in np.flatnonzero(inside):
        if int(lesions.ids[row]) not in found:
            shown[tuple(places[row])] = lesions.ids[row]
    ids, boxes = boxes_from_instances(shown)
    counts = np.bincount(shown.ravel(), minlength=int(lesions.ids.max(initial=0)) + 1)[ids]
    rows = np.searchsorted(lesions.ids, ids)
    whole = lesions.voxels[rows] / mapping.step**3
    keep = (counts >= _LEAST_SHARE * whole) | inside[rows]
    target = {
        "boxes": torch.from_numpy(boxes[keep].astype(np.float32)).reshape(-1, 6),
        "labels": torch.tensor([classes[int(i)] for i in ids[keep]], dtype=torch.int64),
    }
    if mask:
        target["mask"] = torch.from_numpy((shown > 0).astype(np.uint8))
    return target
