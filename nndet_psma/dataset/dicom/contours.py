"""Closed contours as masks on the voxels of an image.

DICOM PS3.3 C.8.8.6.3: contours of type CLOSED_PLANAR enclose what lies in one of them, a hole is drawn as a keyhole;
those of type CLOSEDPLANAR_XOR enclose what an odd number of them holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.dicom.contour_gaps import GapChoice, close_gaps
from nndet_psma.dataset.dicom.structures import Roi

InnerChoice = Literal["ask", "hole", "filled"]

_OFF_SLICE = 0.25
"""How far a contour may lie from the middle of its slice, in slices."""

_ROUNDING = 1e-6
"""Voxels: contours are written with few decimals, and those along voxel centres must not go either way by chance."""


@dataclass(frozen=True)
class ContourRules:
    """What is done where contours can be read in two ways.

    Attributes:
        gaps: slices without a contour inside a structure; see :mod:`~nndet_psma.dataset.dicom.contour_gaps`.
        inner: a CLOSED_PLANAR contour inside another: by the standard it adds nothing, but many systems mean a hole.
    """

    gaps: GapChoice = "ask"
    inner: InnerChoice = "ask"


@dataclass(frozen=True)
class Drawn:
    """A structure on a grid.

    Attributes:
        mask: ``[z, y, x]``.
        filled: number of slices, each structure part counted, that were interpolated between contours.
    """

    mask: NDArray[np.bool_]
    filled: int = 0


def rasterise(roi: Roi, geometry: Geometry, rules: ContourRules | None = None) -> Drawn:
    """Voxels whose centres lie inside the contours.

    A voxel centre on a contour belongs to the structure on its lower side only, so that structures that share a border
    share no voxel. Gaps between contours are closed where these lie on every second (third ...) slice.

    Args:
        roi: what to draw.
        geometry: the grid; its slices must lie parallel to the contours.
        rules: for contours that can be read in two ways.

    Raises:
        UserError: the structure is damaged; a contour lies outside the image, between two slices, or across them; or
            contours can be read in two ways.
    """
    chosen = rules or ContourRules()
    if roi.fault:
        raise UserError(
            f"structure '{roi.name}' cannot be drawn",
            file=roi.file,
            expected="a number of its own and closed contours of three points or more",
            found=roi.fault,
            remedy="Correct the structure set, or leave the structure out",
        )
    mask = np.zeros(geometry.shape, dtype=bool)
    for index, polygons in _by_slice(roi, roi.xor, geometry).items():
        mask[index] = even_odd(polygons, geometry.shape[1:])
    for index, polygons in _by_slice(roi, roi.contours, geometry).items():
        mask[index] |= _join(polygons, geometry, roi, index, chosen.inner)
    return Drawn(mask, close_gaps(mask, geometry.spacing, roi, chosen.gaps))


def even_odd(polygons: Sequence[NDArray[np.float64]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels ``[y, x]`` that an odd number of polygon edges separates from the left border.

    Args:
        polygons: ``[N, 2]`` corners (y, x) in pixels, where pixel ``i`` has its centre at ``i``.
        shape: rows and columns.
    """
    rows, columns = shape
    toggles = np.zeros((rows, columns + 1), dtype=np.int64)
    for polygon in polygons:
        row, crossing = _crossings(polygon, rows)
        first = np.clip(np.ceil(crossing - _ROUNDING), 0, columns).astype(np.int64)
        np.add.at(toggles, (row, first), 1)
    return np.asarray(np.cumsum(toggles, axis=1)[:, :columns] % 2 == 1)


def _crossings(polygon: NDArray[np.float64], rows: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows of pixel centres that the edges cross, and where (x)."""
    start, end = polygon, np.roll(polygon, -1, axis=0)
    lower = np.where((start[:, 0] <= end[:, 0])[:, None], start, end)
    upper = np.where((start[:, 0] <= end[:, 0])[:, None], end, start)
    # half-open in y: an edge that ends on a row of centres and the next one together cross it once
    first = np.clip(np.ceil(lower[:, 0] - _ROUNDING), 0, rows).astype(np.int64)
    last = np.clip(np.ceil(upper[:, 0] - _ROUNDING), 0, rows).astype(np.int64)
    count = last - first
    edge = np.repeat(np.arange(len(polygon)), count)
    row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    height = upper[edge, 0] - lower[edge, 0]
    share = np.clip((row - lower[edge, 0]) / height, 0, 1)
    return row, lower[edge, 1] + share * (upper[edge, 1] - lower[edge, 1])


def _join(
    polygons: Sequence[NDArray[np.float64]], geometry: Geometry, roi: Roi, index: int, inner: InnerChoice
) -> NDArray[np.bool_]:
    """CLOSED_PLANAR contours of one slice: their union; inner ones as the user says."""
    masks = _distinct([even_odd([polygon], geometry.shape[1:]) for polygon in polygons])
    joined = np.zeros(geometry.shape[1:], dtype=bool)
    for k, mask in enumerate(masks):  # the largest first: what holds a contour comes before it
        depth = sum(bool((mask <= other).all()) for other in masks[:k])
        if depth and inner == "ask":
            raise UserError(
                f"a contour of '{roi.name}' lies inside another one",
                file=roi.file,
                expected="holes as keyholes or of type CLOSEDPLANAR_XOR",
                found=f"CLOSED_PLANAR on slice {index + 1} of {geometry.shape[0]}",
                remedy="Say what it is: --inner-contours hole, or --inner-contours filled",
            )
        joined = joined & ~mask if depth % 2 and inner == "hole" else joined | mask
    return joined


def _distinct(masks: Sequence[NDArray[np.bool_]]) -> list[NDArray[np.bool_]]:
    """Masks that are neither empty nor copies of another, the largest first."""
    by_content = {mask.tobytes(): mask for mask in masks if mask.any()}
    return sorted(by_content.values(), key=lambda mask: -int(mask.sum()))


def _by_slice(
    roi: Roi, contours: Sequence[NDArray[np.float64]], geometry: Geometry
) -> dict[int, list[NDArray[np.float64]]]:
    """Polygons (y, x) in pixel centres by the index of their slice."""
    found: dict[int, list[NDArray[np.float64]]] = {}
    outside = 0
    for points in contours:
        indices = geometry.to_voxels(points) - 0.5
        heights = indices[:, 0]
        index = round(float(np.median(heights)))
        if np.abs(heights - index).max() > _OFF_SLICE:
            raise UserError(
                f"contours of '{roi.name}' lie between or across the slices of the image",
                file=roi.file,
                expected=f"every contour within {_OFF_SLICE} slices of the middle of one",
                found=f"{np.abs(heights - index).max():.2f}",
                remedy="Add the image series that the structures were drawn on",
            )
        if not 0 <= index < geometry.shape[0] or _is_beside(indices, geometry):
            outside += 1
        else:
            found.setdefault(index, []).append(indices[:, 1:])
    if outside:
        raise UserError(
            f"{outside} of {len(contours)} contours of '{roi.name}' lie outside the image",
            file=roi.file,
            remedy="Add the whole image series that the structures were drawn on",
        )
    return found


def _is_beside(indices: NDArray[np.float64], geometry: Geometry) -> bool:
    low, high = indices[:, 1:].min(axis=0), indices[:, 1:].max(axis=0)
    return bool((high < -0.5).any() or (low > np.array(geometry.shape[1:]) - 0.5).any())
