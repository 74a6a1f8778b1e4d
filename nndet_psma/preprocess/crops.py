"""Crops round the objects of a mask, on an isotropic grid along the canonical axes of the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.classifier_plan import ClassifierPlan, Voxels
from nndet_psma.boxes.box import box_centres, boxes_from_instances
from nndet_psma.boxes.geometry import Geometry, map_boxes
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import Volume
from nndet_psma.preprocess.object_features import object_features

AIR_HU = -1024
_INT16 = (-32768, 32767)  # metal exceeds it
_HALF = 0.499  # of a voxel: what is cut in half belongs to the object, whichever way the file is turned
INSIDE, VALID = 1, 2
"""Bits of the codes of a crop's voxels: in the object, in the image."""


@dataclass(frozen=True)
class FoundObject:
    """One object of a mask.

    Attributes:
        object_id: number in the mask.
        box: ``(z0, y0, x0, z1, y1, x1)`` voxel edges in the image file's own array order.
        centre_mm: LPS (x, y, z) of the centre of its box.
        features: measured on the image's own voxels.
    """

    object_id: int
    box: tuple[float, ...]
    centre_mm: tuple[float, float, float]
    features: dict[str, float | None]


@dataclass(frozen=True)
class ObjectCrops:
    """Crops of the objects of one case.

    Attributes:
        objects: in the order of their numbers.
        ct: ``[N, z, y, x]`` int16 HU; :data:`AIR_HU` beyond the image.
        codes: ``[N, z, y, x]`` uint8 of :data:`INSIDE` and :data:`VALID`.
        spacing: of the crops, mm.
        direction: of the image's canonical axes, as in :class:`Geometry`.
    """

    objects: list[FoundObject]
    ct: NDArray[np.int16]
    codes: NDArray[np.uint8]
    spacing: tuple[float, float, float]
    direction: tuple[float, ...]

    def geometry(self, index: int) -> Geometry:
        """Where a crop lies in the patient."""
        z, y, x = self.ct.shape[1:]
        at_origin = Geometry((z, y, x), self.spacing, direction=self.direction)
        middle = at_origin.to_patient(np.array([[z, y, x]]) / 2)[0]
        ox, oy, oz = (np.array(self.objects[index].centre_mm) - middle).tolist()
        return Geometry((z, y, x), self.spacing, (ox, oy, oz), self.direction)


def cut_objects(
    ct: Volume,
    mask: Volume,
    plan: ClassifierPlan,
    *,
    image: Geometry,
    ctv: Volume | None = None,
    measured: Mapping[int, Mapping[str, float]] | None = None,
) -> ObjectCrops:
    """Cut a crop round every object and measure it.

    Args:
        ct: canonical, HU.
        mask: numbers of the objects on the same grid.
        plan: spacing and size of the crops.
        image: grid in the axis order of the file, for boxes.
        ctv: search region on the same grid, for the distance to it.
        measured: what else is known of objects, by number and name, beside what is measured here.

    Raises:
        UserError: CT and mask lie on different grids.
    """
    if not ct.geometry.same_grid(mask.geometry):
        raise UserError(
            "the mask of the objects lies on another grid than the CT",
            expected=f"{ct.geometry.shape} voxels of {ct.geometry.spacing} mm (z, y, x)",
            found=f"{mask.geometry.shape} voxels of {mask.geometry.spacing} mm",
            remedy="Resample it onto the CT",
        )
    numbers, boxes = boxes_from_instances(mask.array)
    placed = map_boxes(boxes, ct.geometry, image).tolist()
    middles = box_centres(boxes)
    in_patient = ct.geometry.to_patient(middles).tolist() if len(boxes) else []
    shape = plan.crop.stored
    hu = np.empty((len(numbers), *shape), dtype=np.int16)
    codes = np.empty((len(numbers), *shape), dtype=np.uint8)
    objects = []
    for index, number in enumerate(int(each) for each in numbers):
        features = object_features(ct, mask, number, boxes[index], ctv) | dict(
            (measured or {}).get(number, {})
        )
        objects.append(FoundObject(number, tuple(placed[index]), tuple(in_patient[index]), features))
        place = _Place(middles[index], ct.geometry, plan.spacing, shape)
        hu[index] = np.clip(np.rint(place.cut(ct.array, AIR_HU)), *_INT16)
        inside = place.cut(mask.array, 0, number) >= _HALF
        codes[index] = INSIDE * inside + VALID * place.valid()
    return ObjectCrops(objects, hu, codes, plan.spacing, ct.geometry.direction)


@dataclass(frozen=True)
class _Place:
    """Where a crop lies on the voxels of an image.

    Attributes:
        middle: centre (z, y, x), voxel edges.
        grid: of the image.
        spacing: of the crop, mm.
        shape: of the crop.
    """

    middle: NDArray[np.float64]
    grid: Geometry
    spacing: tuple[float, float, float]
    shape: Voxels

    def coordinates(self, axis: int) -> NDArray[np.float64]:
        """Voxel numbers of the image, in parts, of the crop's voxel centres along an axis."""
        steps = np.arange(self.shape[axis]) - (self.shape[axis] - 1) / 2
        found: NDArray[np.float64] = (
            self.middle[axis] - 0.5 + steps * (self.spacing[axis] / self.grid.spacing[axis])
        )
        return found

    def cut(self, array: NDArray[Any], fill: float, number: int | None = None) -> NDArray[np.float32]:
        """Resample linearly; beyond the image as if it were padded with ``fill``.

        With a ``number`` its voxels are 1 and all others 0. The axes are those of the image, so three one-dimensional
        steps do.
        """
        lines = [self.coordinates(axis) for axis in range(3)]
        before = [np.floor(line).astype(np.int64) for line in lines]
        lower, upper = (
            [int(v) for v in ends] for ends in zip(*((b[0], b[-1] + 2) for b in before), strict=True)
        )
        found = np.full([b - a for a, b in zip(lower, upper, strict=True)], fill, dtype=np.float32)
        there = [(max(0, a), min(b, n)) for a, b, n in zip(lower, upper, array.shape, strict=True)]
        part = array[tuple(slice(a, b) for a, b in there)]
        place = tuple(slice(a - low, b - low) for (a, b), low in zip(there, lower, strict=True))
        found[place] = part if number is None else part == number
        for axis, (line, first) in enumerate(zip(lines, before, strict=True)):
            weight = (line - first).astype(np.float32).reshape([-1 if k == axis else 1 for k in range(3)])
            one, next_one = (found.take(first - lower[axis] + step, axis) for step in (0, 1))
            found = one + (next_one - one) * weight
        return found

    def valid(self) -> NDArray[np.bool_]:
        """Which voxel centres of the crop lie in the image."""
        lines = [self.coordinates(axis) for axis in range(3)]
        z, y, x = (
            (line >= -0.5) & (line < size - 0.5) for line, size in zip(lines, self.grid.shape, strict=True)
        )
        inside: NDArray[np.bool_] = z[:, None, None] & y[:, None] & x
        return inside
