"""The DICOM series that was measured: where each image lies, so that a structured report can point into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.dicom.headers import DicomHeader, make_header, read_dataset
from nndet_psma.dataset.dicom.series import stack_geometry, stack_order
from nndet_psma.dataset.dicom.values import UnreadableValue, read_text, unreadable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_NEEDED = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
_PLACED = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_COPIED = ("SOPClassUID", "PatientName", "AccessionNumber", "StudyID", "StudyDate", "StudyTime")
"""What a report also takes over from an image."""

_REMEDY = "Name the folder with the DICOM slices of the one series that the mask was made on"


@dataclass(frozen=True)
class SourceSeries:
    """Images of one series.

    Attributes:
        images: headers, without pixels, in the order of their position along ``normal``.
        slices: what of them says where they lie.
        positions: ``[N]`` of each along ``normal``, mm.
        normal: unit vector (x, y, z) LPS from slice to slice.
    """

    images: Sequence[Dataset]
    slices: Sequence[DicomHeader]
    positions: NDArray[np.float64]
    normal: NDArray[np.float64]

    @property
    def thickness(self) -> float:
        """Median distance of neighbouring positions in mm; that of the header for a single slice, else 1."""
        steps = np.diff(np.unique(np.round(self.positions, 3)))
        if len(steps):
            return float(np.median(steps))
        return self.slices[0].thickness or 1.0

    def on_image(self, points: NDArray[np.float64]) -> tuple[Dataset, NDArray[np.float64]] | None:
        """The image whose plane lies nearest to an outline, and the outline on it; None beyond half a slice.

        Args:
            points: ``[N, 3]`` (x, y, z) LPS.

        Returns:
            header, and ``[N, 2]`` (column, row); the corner of the first pixel is (0, 0).
        """
        distance = np.abs(self.positions - float(points.mean(axis=0) @ self.normal))
        nearest = int(np.argmin(distance))
        if distance[nearest] > 0.51 * self.thickness:
            return None
        voxels = stack_geometry([self.slices[nearest]]).to_voxels(points)
        return self.images[nearest], voxels[:, :0:-1]


def read_series(folder: Path) -> SourceSeries:
    """Headers of the one series in a folder; files that are no DICOM are passed over.

    Raises:
        UserError: no folder, no DICOM images, a damaged one, several series or patients, or images that do not say
            where they lie (also multi-frame files).
    """
    if not folder.is_dir():
        raise UserError("folder does not exist", file=folder, remedy=_REMEDY)
    found = [(file, read_dataset(file)) for file in sorted(folder.iterdir()) if file.is_file()]
    read = [(image, _header(image, file)) for file, image in found if image is not None and "Rows" in image]
    if not read:
        raise UserError("holds no DICOM images", file=folder, remedy=_REMEDY)
    images, slices = zip(*read, strict=True)
    series = {header.series for header in slices}
    if len(series) > 1:
        raise UserError(
            "holds several DICOM series", file=folder, found=f"{len(series)} series", remedy=_REMEDY
        )
    if len({header.patient_id for header in slices}) > 1:
        raise UserError("holds images of several patients", file=folder, remedy=_REMEDY)
    for header in slices:
        _check(header, folder)
    order, positions, normal = stack_order(slices)
    return SourceSeries([images[k] for k in order], [slices[k] for k in order], positions, normal)


def _header(image: Dataset, file: Path) -> DicomHeader:
    """Header of an image; what a report copies of it is read, too, so that it cannot fail later.

    Raises:
        UserError: a value cannot be read.
    """
    try:
        header = make_header(image, file, file.parent)
        for name in _COPIED:
            read_text(image, name)
    except UnreadableValue as error:
        raise unreadable(file, str(error)) from None
    if header.faults:
        raise unreadable(file, header.faults[0])
    return header


def _check(header: DicomHeader, folder: Path) -> None:
    held = (header.instance, header.series, header.study, header.frame)
    placed = (header.position, header.orientation, header.pixel_spacing)
    names = zip((*_NEEDED, *_PLACED), (*held, *placed), strict=True)
    missing = [name for name, value in names if not value]
    if missing:
        raise UserError(
            "DICOM image without its place in the patient"
            if header.frames == 1
            else "multi-frame DICOM image",
            file=folder,
            expected=f"single-frame images with {', '.join((*_NEEDED, *_PLACED))}",
            found=f"no {', '.join(missing)}",
            remedy=_REMEDY,
        )
