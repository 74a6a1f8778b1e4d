"""The DICOM series that was measured: where each image lies, so that a structured report can point into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.errors import UserError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_NEEDED = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
_PLACED = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_REMEDY = "Name the folder with the DICOM slices of the one series that the mask was made on"


@dataclass(frozen=True)
class SourceSeries:
    """Images of one series.

    Attributes:
        images: headers, without pixels, in the order of their position along ``normal``.
        positions: ``[N]`` of each along ``normal``, mm.
        normal: unit vector (x, y, z) LPS from slice to slice.
    """

    images: Sequence[Dataset]
    positions: NDArray[np.float64]
    normal: NDArray[np.float64]

    @property
    def thickness(self) -> float:
        """Median distance of neighbouring positions in mm; that of the header for a single slice, else 1."""
        steps = np.diff(np.unique(np.round(self.positions, 3)))
        if len(steps):
            return float(np.median(steps))
        return float(self.images[0].get("SliceThickness") or 1.0)

    def image_at(self, point: NDArray[np.float64]) -> Dataset | None:
        """The image whose plane lies nearest to a point (x, y, z) LPS; None when it is more than half a slice away."""
        distance = np.abs(self.positions - float(point @ self.normal))
        nearest = int(np.argmin(distance))
        return self.images[nearest] if distance[nearest] <= 0.51 * self.thickness else None

    @staticmethod
    def to_pixels(image: Dataset, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points ``[N, 3]`` (x, y, z) LPS to (column, row) of an image; the corner of the first pixel is (0, 0)."""
        along_row, along_column = _directions(image)
        offset = points - np.array(image.ImagePositionPatient, dtype=np.float64)
        row_mm, column_mm = (float(value) for value in image.PixelSpacing)
        return np.stack([offset @ along_row / column_mm, offset @ along_column / row_mm], axis=1) + 0.5


def read_series(folder: Path) -> SourceSeries:
    """Headers of the one series in a folder; files that are no DICOM are passed over.

    Raises:
        UserError: pydicom is missing, no folder, no DICOM images, several series, or images that do not say where they
            lie (also multi-frame files).
    """
    images = [image for image in _headers(folder) if "Rows" in image]
    if not images:
        raise UserError("holds no DICOM images", file=folder, remedy=_REMEDY)
    series = {str(image.get("SeriesInstanceUID", "")) for image in images}
    if len(series) > 1:
        raise UserError(
            "holds several DICOM series", file=folder, found=f"{len(series)} series", remedy=_REMEDY
        )
    for image in images:
        _check(image, folder)
    normal = np.cross(*_directions(images[0]))
    places = np.array([np.array(image.ImagePositionPatient, dtype=np.float64) @ normal for image in images])
    order = np.argsort(places, kind="stable")
    return SourceSeries([images[index] for index in order], places[order], normal)


def _headers(folder: Path) -> list[Any]:
    try:
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError
    except ImportError:
        raise UserError(
            "DICOM needs a package that is not there", expected="pydicom and highdicom",
            remedy="Install them: pip install 'nndet_psma[dicom]'",
        ) from None  # fmt: skip
    if not folder.is_dir():
        raise UserError("folder does not exist", file=folder, remedy=_REMEDY)
    found = []
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        try:
            found.append(dcmread(file, stop_before_pixels=True))
        except InvalidDicomError:
            continue  # a licence, a NIfTI copy
        except OSError as error:
            raise UserError("cannot be read", file=file, found=str(error)) from None
    return found


def _check(image: Dataset, folder: Path) -> None:
    missing = [name for name in (*_NEEDED, *_PLACED) if not image.get(name)]
    if missing:
        frames = int(image.get("NumberOfFrames") or 1)
        raise UserError(
            "DICOM image without its place in the patient" if frames == 1 else "multi-frame DICOM image",
            file=folder,
            expected=f"single-frame images with {', '.join((*_NEEDED, *_PLACED))}",
            found=f"no {', '.join(missing)}",
            remedy=_REMEDY,
        )


def _directions(image: Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit vectors along a row (growing column) and along a column."""
    cosines = np.array(image.ImageOrientationPatient, dtype=np.float64)
    return cosines[:3], cosines[3:]
