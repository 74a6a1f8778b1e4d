"""Instances of a mask: their size, their place, and whether each is one lesion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nndet_psma.dataset.checks.masks import CoarseBody
from nndet_psma.dataset.faults.kinds import Fault
from nndet_psma.dataset.images.images import Volume

APART_MM = 10.0
"""Pieces of one instance further apart are told: as far as a large node, so that a node cut by a slice is not."""
_FAR_OUT_MM = 10.0
_HUGE_SHARE = 0.2
_BROAD = 0.75
_MOST_IDS = 10_000  # beyond, the mask is no instance mask, and other findings say so
_MOST_PIECES = 200
_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)
# what and remedy by kind
_TEXTS = {
    "lesion of one voxel": (
        "lesions of a single voxel",
        "Remove stray voxels; anything this small is noise to the detector",
    ),
    "lesion at the image border": (
        "lesions are cut off by the edge of the image",
        "Check that the image was not cropped too tightly, or that the mask is not shifted",
    ),
    "huge lesion": (
        "lesions larger than a fifth of the body",
        "Check that the mask is not inverted or an organ",
    ),
    "lesion in pieces": (
        "one number for parts that lie far apart",
        "Give each lesion its own number; a semantic mask must be split into its components",
    ),
    "lesions touch": (
        "lesions share a broad face",
        "Is it one lesion under two numbers? Give it one",
    ),
    "lesion outside the body": (
        "lesions lie in the air round the patient",
        "Check origin and orientation of the mask against the CT",
    ),
    "lesion outside CTV": (
        "lesions lie entirely outside the CTV",
        "They can only be found if the margin round the CTV reaches them",
    ),
    "lesion partly outside CTV": (
        f"lesions reach more than {_FAR_OUT_MM:g} mm out of the CTV",
        "Check CTV and mask against each other",
    ),
}


@dataclass(frozen=True)
class _Scene:
    array: NDArray[Any]
    spacing: tuple[float, float, float]
    region: NDArray[np.bool_] | None
    body: CoarseBody | None


def lesion_faults(
    labels: Volume, file: Path, *, region: NDArray[np.bool_] | None = None, body: CoarseBody | None = None
) -> Iterator[Fault]:
    """Doubtful instances of a mask, one fault per kind that lists the instances.

    Args:
        labels: instance ids, whole numbers from 0.
        file: the mask.
        region: search region on the same grid.
        body: of the CT on the same grid.
    """
    array = labels.array if labels.array.dtype.kind in "iu" else labels.array.astype(np.int32)
    if array.size == 0 or int(array.max()) > _MOST_IDS:
        return
    scene = _Scene(array, labels.geometry.spacing, region, body)
    found: dict[str, list[str]] = {}
    for index, slices in enumerate(ndimage.find_objects(array), start=1):
        if slices is not None:
            for kind, who in _judge(scene, index, slices):
                found.setdefault(kind, []).append(who)
    for kind, (what, remedy) in _TEXTS.items():
        if kind in found:
            yield Fault(kind, what, file=file, found=_listed(found[kind]), remedy=remedy)


def _judge(scene: _Scene, index: int, slices: tuple[slice, ...]) -> Iterator[tuple[str, str]]:
    mask = scene.array[slices] == index
    count, name = int(np.count_nonzero(mask)), str(index)
    if count == 1:
        yield "lesion of one voxel", name
    if _at_border(slices, scene.array.shape):
        yield "lesion at the image border", name
    body = scene.body
    if body is not None and count * float(np.prod(scene.spacing)) > _HUGE_SHARE * body.volume_mm3:
        yield "huge lesion", name
    gap = widest_gap(mask, scene.spacing)
    if gap > APART_MM:
        yield "lesion in pieces", f"{name} (gap {gap:.0f} mm)"
    for other in _touching(scene.array, index, slices):
        yield "lesions touch", f"{index} and {other}"
    if body is not None and _mostly_in_air(mask, slices, body):
        yield "lesion outside the body", name
    if scene.region is not None:
        yield from _against_region(scene, scene.region, index, slices)


def _at_border(slices: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    return any(
        size > 1 and (part.start == 0 or part.stop == size) for part, size in zip(slices, shape, strict=True)
    )


def widest_gap(mask: NDArray[np.bool_], spacing: tuple[float, float, float]) -> float:
    """Largest of the gaps (mm) that must be bridged to join the pieces of a mask, by their boxes; 0 for one piece."""
    pieces, count = ndimage.label(mask, _NEIGHBOURS)
    if count < 2:
        return 0.0
    boxes = [slices for slices in ndimage.find_objects(pieces) if slices is not None][:_MOST_PIECES]
    lower = np.array([[part.start for part in box] for box in boxes]) * np.array(spacing)
    upper = np.array([[part.stop for part in box] for box in boxes]) * np.array(spacing)
    apart = np.maximum(lower[:, None] - upper[None], lower[None] - upper[:, None])
    gaps = np.linalg.norm(np.maximum(apart, 0), axis=2)
    widest, joined = 0.0, gaps[0].copy()  # Prim's spanning tree: its longest edge is what has to be bridged
    left = np.ones(len(boxes), dtype=bool)
    left[0] = False
    while left.any():
        nearest = int(np.where(left, joined, np.inf).argmin())
        widest = max(widest, float(joined[nearest]))
        left[nearest] = False
        joined = np.minimum(joined, gaps[nearest])
    return widest


def _touching(array: NDArray[Any], index: int, slices: tuple[slice, ...]) -> list[int]:
    """Higher ids that share a broad face with instance ``index``.

    Confluent nodes touch in a few voxels; a lesion cut in two shares its cross-section, which for a ball of which n
    voxels lie on each side has about 1.9 n^(2/3) voxels. From 0.75 n^(2/3) of the smaller one on it is reported.
    """
    near = array[_grown(slices, (1, 1, 1))]
    others = near > index
    if not others.any():
        return []
    own = near == index
    contact = near[ndimage.binary_dilation(own, _NEIGHBOURS) & others]
    size = int(np.count_nonzero(own))
    found = []
    for other, shared in zip(*np.unique(contact, return_counts=True), strict=True):
        smaller = min(size, int(np.count_nonzero(array == other)))
        if shared >= _BROAD * smaller ** (2 / 3):
            found.append(int(other))
    return found


def _mostly_in_air(mask: NDArray[np.bool_], slices: tuple[slice, ...], body: CoarseBody) -> bool:
    z, y, x = (points + part.start for points, part in zip(np.nonzero(mask), slices, strict=True))
    return float(body.contains(z, y, x).mean()) < 0.5


def _against_region(
    scene: _Scene, region: NDArray[np.bool_], index: int, slices: tuple[slice, ...]
) -> Iterator[tuple[str, str]]:
    reach = tuple(int(np.ceil(_FAR_OUT_MM / step)) + 1 for step in scene.spacing)
    window = _grown(slices, reach)
    mask, near = scene.array[window] == index, region[window]
    outside = mask & ~near
    if not outside.any():
        return
    if not (mask & near).any():
        yield "lesion outside CTV", str(index)
        return
    farthest = float(ndimage.distance_transform_edt(~near, sampling=scene.spacing)[outside].max())
    if farthest > _FAR_OUT_MM:
        yield "lesion partly outside CTV", f"{index} ({farthest:.0f} mm)"


def _grown(slices: tuple[slice, ...], by: tuple[int, ...]) -> tuple[slice, ...]:
    """Slices widened on both sides; a stop beyond the array does no harm."""
    return tuple(
        slice(max(0, part.start - step), part.stop + step) for part, step in zip(slices, by, strict=True)
    )


def _listed(names: list[str]) -> str:
    shown = "instances " if len(names) > 1 else "instance "
    return shown + ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
