"""Where a classifier looks: how much its log odds fall when a small cube of a crop is painted over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nndet_psma.artifacts.classifier_plan import CropPlan
from nndet_psma.inference.classifying import CropEnsemble
from nndet_psma.preprocess.crops import INSIDE, VALID

CUBE_MM = 6.0
"""Side of the cube that is painted over: about the short axis of a small node."""

RING_MM = 5.0
"""How far round an object its ring reaches."""


@dataclass(frozen=True)
class Importance:
    """Of one crop.

    Attributes:
        drop: ``[z, y, x]`` fall of the mean log odds of the positive class where a voxel was painted over, 0 where
            nothing is seen.
        inside: share of the absolute falls on voxels of the object.
        ring: share within 5 mm round it.
        outside: share farther away.
        peak_inside: whether the cube with the largest absolute fall touches the object.
    """

    drop: NDArray[np.float32]
    inside: float
    ring: float
    outside: float
    peak_inside: bool


def occlusion(
    ensemble: CropEnsemble, ct: NDArray[np.int16], codes: NDArray[np.uint8], *, cube_mm: float = CUBE_MM
) -> Importance:
    """Paint the cubes of a crop over one after another, with the median of the crop, and ask again; the mask stays.

    Args:
        ensemble: of the model.
        ct: ``[z, y, x]`` stored crop, HU.
        codes: ``[z, y, x]`` of the same.
        cube_mm: side of the cubes, which lie side by side.

    Source: Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks".
    """
    plan = ensemble.plan
    cubes = list(_cubes(plan.crop, max(1, round(cube_mm / plan.spacing[0]))))
    fill = np.int16(np.median(ct[(codes & VALID) > 0]))
    painted = [ct, *(_painted(ct, cube, fill) for cube in cubes)]
    odds = ensemble.voting(painted, np.broadcast_to(codes, (len(painted), *codes.shape))).mean(axis=0)
    drop = np.zeros(ct.shape, dtype=np.float32)
    for cube, value in zip(cubes, odds[0] - odds[1:], strict=True):
        drop[cube] = value
    return _measured(drop, (codes & INSIDE) > 0, plan.spacing, cubes)


def _cubes(crop: CropPlan, side: int) -> Iterator[tuple[slice, ...]]:
    """Cubes that cover what is seen of a stored crop."""
    starts = [range(margin, margin + size, side) for margin, size in zip(crop.margin, crop.size, strict=True)]
    ends = [margin + size for margin, size in zip(crop.margin, crop.size, strict=True)]
    for corner in product(*starts):
        yield tuple(slice(a, min(a + side, end)) for a, end in zip(corner, ends, strict=True))


def _painted(ct: NDArray[np.int16], cube: tuple[slice, ...], fill: np.int16) -> NDArray[np.int16]:
    found = ct.copy()
    found[cube] = fill
    return found


def _measured(
    drop: NDArray[np.float32],
    inside: NDArray[np.bool_],
    spacing: tuple[float, float, float],
    cubes: list[tuple[slice, ...]],
) -> Importance:
    size = np.abs(drop)
    total = float(size.sum()) or 1.0
    near = ndimage.distance_transform_edt(~inside, sampling=spacing) <= RING_MM
    within, ring, beyond = (float(size[w].sum()) / total for w in (inside, near & ~inside, ~near & ~inside))
    best = max(cubes, key=lambda cube: float(size[cube].max()))
    return Importance(drop, within, ring, beyond, bool(inside[best].any()))
