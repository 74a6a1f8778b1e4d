"""nnDetection's toy task: noise with one bright cube per volume, solid (class 0) or with a hole (class 1).

The values are those of nnDetection's example generator: uniform noise from 0 to 1, an object of 16 to 31 voxels along
every axis, 0.4 brighter and clipped at 1, a wall of 4 voxels round the hole, which runs through the object along z.
Only the volume is smaller unless asked otherwise: nnDetection's has 256 voxels along every axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.phantom.schedule import CaseSpec, Split, name_case

SQUARE, SQUARE_HOLE = 0, 1
CONTRAST = 0.4
WALL_VOXELS = 4
OBJECT_VOXELS = (16, 32)
"""Smallest size of an object and the one it stays below."""


@dataclass(frozen=True)
class SquaresOptions:
    """Size of the volumes.

    Attributes:
        image_size: voxels along (z, y, x), of 1 mm.

    Raises:
        UserError: an object would not fit.
    """

    image_size: tuple[int, int, int] = (64, 64, 64)

    def __post_init__(self) -> None:
        if min(self.image_size) < OBJECT_VOXELS[1]:
            raise UserError(
                "the volume is too small for an object",
                expected=f"at least {OBJECT_VOXELS[1]} voxels along every axis",
                found=str(self.image_size),
                remedy="Raise --image_size",
            )


@dataclass(frozen=True)
class SquaresCase:
    """A case as it is written.

    Attributes:
        spec: its place in the task.
        geometry: 1 mm voxels.
        images: one volume ``[z, y, x]`` float32, from 0 to 1.
        labels: ``[z, y, x]`` uint8, 1 in the object.
        classes: class of instance 1.
    """

    spec: CaseSpec
    geometry: Geometry
    images: tuple[NDArray[np.float32]]
    labels: NDArray[np.uint8]
    classes: dict[int, int]


def plan_square(seed: int, split: Split, index: int) -> CaseSpec:
    """The specification of one case; every case is its own patient and holds an object."""
    return CaseSpec(name_case("case", split, index), split, index, index, True, seed)


def draw_squares(spec: CaseSpec, options: SquaresOptions) -> SquaresCase:
    """Draw a case; the same specification and options give the same voxels."""
    rng = spec.chance("scan")
    size, label = int(rng.integers(*OBJECT_VOXELS)), int(rng.integers(2))
    corner = [int(rng.integers(length - size + 1)) for length in options.image_size]
    mask = object_mask(options.image_size, corner, size, hole=label == SQUARE_HOLE)
    image = rng.random(options.image_size, dtype=np.float32)
    image = np.minimum(image + np.float32(CONTRAST) * mask, 1)
    geometry = Geometry(options.image_size, (1.0, 1.0, 1.0))
    return SquaresCase(spec, geometry, (image,), mask.astype(np.uint8), {1: label})


def object_mask(
    shape: tuple[int, int, int], corner: list[int], size: int, *, hole: bool
) -> NDArray[np.bool_]:
    """A cube of ``size`` voxels from ``corner`` (z, y, x); the hole goes through it along z."""
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(start, start + size) for start in corner)] = True
    if hole:
        inner = tuple(slice(start + WALL_VOXELS, start + size - WALL_VOXELS) for start in corner[1:])
        mask[(slice(None), *inner)] = False
    return mask
