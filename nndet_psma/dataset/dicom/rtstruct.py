"""Contours of a radiotherapy structure set (RTSTRUCT) as masks on the voxels of an image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.dicom.headers import read_dataset

if TYPE_CHECKING:
    from pydicom import Dataset

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_OFF_SLICE = 0.25
"""How far a contour may lie from the middle of its slice, in slices."""

_ROUNDING = 1e-6
"""Voxels: contours are written with few decimals, and those along voxel centres must not go either way by chance."""


@dataclass(frozen=True)
class Roi:
    """One structure.

    Attributes:
        name: as the user called it, without blanks round it.
        contours: closed polygons in a plane, ``[N, 3]`` LPS (x, y, z) mm each; may be none.
        frame: UID of the frame of reference of the points, or "".
        series: UIDs of the image series that it was drawn on.
        file: the structure set.
    """

    name: str
    contours: tuple[NDArray[np.float64], ...]
    frame: str
    series: frozenset[str]
    file: Path


@dataclass(frozen=True)
class StructureSet:
    """All structures of a file.

    Attributes:
        file: the RTSTRUCT.
        instance: its UID.
        series: UIDs of the image series that the structures were drawn on.
        rois: in the order of the file; names need not differ.
    """

    file: Path
    instance: str
    series: frozenset[str]
    rois: tuple[Roi, ...]


def read_structures(file: Path) -> StructureSet:
    """Read a structure set.

    Raises:
        UserError: the file is no RTSTRUCT, or a contour has no whole number of points.
    """
    dataset = read_dataset(file)
    if dataset is None or str(dataset.get("Modality")) != "RTSTRUCT":
        raise UserError("no structure set", file=file, expected="DICOM of modality RTSTRUCT")
    contours = {
        int(item.ReferencedROINumber): _contours(item, file)
        for item in dataset.get("ROIContourSequence") or ()
    }
    series = referenced_series(dataset)
    rois = [
        Roi(
            name=str(item.get("ROIName") or "").strip(),
            contours=contours.get(int(item.ROINumber), ()),
            frame=str(item.get("ReferencedFrameOfReferenceUID") or ""),
            series=series,
            file=file,
        )
        for item in dataset.get("StructureSetROISequence") or ()
    ]
    return StructureSet(file, str(dataset.get("SOPInstanceUID") or ""), series, tuple(rois))


def referenced_series(dataset: Dataset) -> frozenset[str]:
    """UIDs of the image series a structure set was drawn on."""
    return frozenset(
        str(series.SeriesInstanceUID)
        for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ()
        for study in frame.get("RTReferencedStudySequence") or ()
        for series in study.get("RTReferencedSeriesSequence") or ()
    )


def find_rois(rois: Iterable[Roi], patterns: Sequence[str]) -> list[Roi]:
    """Structures whose name fits one of the patterns (``*``, ``?`` and ``[...]``; case does not matter)."""
    wanted = [pattern.strip().casefold() for pattern in patterns]
    return [roi for roi in rois if any(fnmatchcase(roi.name.casefold(), pattern) for pattern in wanted)]


def rasterise(roi: Roi, geometry: Geometry) -> NDArray[np.bool_]:
    """Voxels whose centres lie inside the contours, ``[z, y, x]``.

    Contours of one slice are joined by even-odd counting: one inside another is a hole, as is the inside of a
    keyhole contour. A voxel centre on a contour belongs to the structure on its lower side only, so that structures
    that share a border share no voxel.

    Args:
        roi: what to draw.
        geometry: the grid; its slices must lie parallel to the contours.

    Raises:
        UserError: a contour lies outside the image, between two slices, or across them.
    """
    mask = np.zeros(geometry.shape, dtype=bool)
    for index, polygons in _by_slice(roi, geometry).items():
        mask[index] = even_odd(polygons, geometry.shape[1:])
    return mask


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


def _by_slice(roi: Roi, geometry: Geometry) -> dict[int, list[NDArray[np.float64]]]:
    """Polygons (y, x) in pixel centres by the index of their slice."""
    found: dict[int, list[NDArray[np.float64]]] = {}
    outside = 0
    for points in roi.contours:
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
            f"{outside} of {len(roi.contours)} contours of '{roi.name}' lie outside the image",
            file=roi.file,
            remedy="Add the whole image series that the structures were drawn on",
        )
    return found


def _is_beside(indices: NDArray[np.float64], geometry: Geometry) -> bool:
    low, high = indices[:, 1:].min(axis=0), indices[:, 1:].max(axis=0)
    return bool((high < -0.5).any() or (low > np.array(geometry.shape[1:]) - 0.5).any())


def _contours(item: Any, file: Path) -> tuple[NDArray[np.float64], ...]:
    polygons = []
    for contour in item.get("ContourSequence") or ():
        if str(contour.get("ContourGeometricType")) not in _CLOSED:
            continue  # points and open lines enclose nothing
        values = np.array(contour.ContourData, dtype=np.float64)
        if values.size % 3:
            raise UserError(
                "a contour has no whole number of points", file=file, remedy="Export the file again"
            )
        polygons.append(values.reshape(-1, 3))
    return tuple(polygons)
