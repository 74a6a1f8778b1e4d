"""Images in, images out: the one border between files (SimpleITK, x, y, z) and our arrays (z, y, x).

Reading is canonical unless asked otherwise: the axes are permuted and flipped until they run to the patient's left,
back and head (LPS, as near as the axes come), so that files that differ only in how their header orders the axes
give the same array. Oblique axes stay oblique: voxels are never interpolated on reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.atomic import atomic_file
from nndet_psma.core.errors import UserError, utf8_path
from nndet_psma.dataset.images.directions import sform_geometry, straightened
from nndet_psma.dataset.images.nifti_bytes import (
    check_nifti,
    count_not_finite,
    damaged,
    is_nifti_name,
    not_finite,
    read_header,
    read_voxels,
)
from nndet_psma.dataset.images.nifti_header import NiftiHeader
from nndet_psma.dataset.images.nrrd_header import check_nrrd_header
from nndet_psma.dataset.images.whole import check_whole

if TYPE_CHECKING:
    import SimpleITK as sitk

_NEGLIGIBLE = 1e-12  # direction cosines and millimetres


@dataclass(frozen=True)
class Volume:
    """An image with its place in the patient.

    Attributes:
        array: voxels (z, y, x).
        geometry: its grid; ``geometry.shape`` equals ``array.shape``.
    """

    array: NDArray[Any]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape:
            raise ValueError(f"array {self.array.shape} does not fit the grid {self.geometry.shape}")


def read_volume(
    file: Path,
    *,
    canonical: bool = True,
    header: NiftiHeader | None = None,
    geometry: Geometry | None = None,
) -> Volume:
    """Read an image of numbers in the type of the file.

    NIfTI files are unpacked here and not by ITK, in half of the time: length, checksum, NaN and infinity are verified
    in the one pass that decodes the voxels. Other formats go to ITK, and are unpacked once more to verify them.

    Args:
        file: NIfTI, MetaImage or NRRD; a 2D image becomes one slice.
        canonical: permute and flip the axes to LPS; otherwise keep the order of the file.
        header: of :func:`~nndet_psma.dataset.images.nifti_bytes.read_header`, where it has been read already.
        geometry: in the axis order of the file, where it is known already.

    Raises:
        UserError: the file is missing, no image, truncated or damaged, not 2D or 3D, or holds NaN or infinity.
    """
    if geometry is None:
        geometry = read_geometry(file, canonical=False)
    stored = _voxels(file, header, geometry)
    if stored.size != np.prod(geometry.shape):  # a header that two readers understand differently
        raise damaged(file, f"{stored.size} voxels on a grid of {geometry.shape}")
    array = stored.reshape(geometry.shape)
    if array.dtype.kind == "f":
        nan, infinite = count_not_finite(array)
        if nan or infinite:
            raise not_finite(file, nan, infinite)
    if not canonical:
        return Volume(array, geometry)
    axes, flips = _axis_plan(geometry)
    turned = np.flip(array.transpose(axes), tuple(axis for axis in range(3) if flips[axis]))
    return Volume(np.ascontiguousarray(turned), canonical_geometry(geometry))


def read_geometry(file: Path, canonical: bool = True) -> Geometry:
    """Grid of an image from its header alone; the same as that of :func:`read_volume`.

    Directions that are off by rounding are made orthonormal, with a warning.

    Raises:
        UserError: the file is missing, no image, not 2D or 3D, not of single numbers, or its axes or spacing
            make no sense.
    """
    geometry = straightened(written_geometry(file), file)
    return canonical_geometry(geometry) if canonical else geometry


def itk_agrees(file: Path) -> bool:
    """Whether ITK would read the file as we do; for frameworks that are given the file itself.

    Raises:
        UserError: the compressed data break off or are damaged within the header.
    """
    header = read_header(file) if is_nifti_name(file) else None
    if header is None:
        return True
    sform = sform_geometry(header) if header.forms[0] <= 0 else None
    return not header.idle_intercept and (sform is None or straightened(sform, file) is sform)


def original_geometry(file: Path) -> Geometry:
    """Grid of an image in the axis order of the file: where boxes go back to (``map_boxes``)."""
    return read_geometry(file, canonical=False)


def canonical_geometry(geometry: Geometry) -> Geometry:
    """The same voxels with axes permuted and flipped to LPS."""
    axes, flips = _axis_plan(geometry)
    corner = np.array([geometry.shape[axes[axis]] - 1 if flips[axis] else 0 for axis in range(3)])
    first = np.zeros(3)
    first[list(axes)] = corner
    origin = geometry.to_patient(first[None] + 0.5)[0]
    matrix = np.array(geometry.direction).reshape(3, 3)[:, ::-1]  # columns: array axes z, y, x
    turned = matrix[:, list(axes)] * np.where(flips, -1.0, 1.0)
    shape, spacing = geometry.shape, geometry.spacing
    return Geometry(
        shape=(shape[axes[0]], shape[axes[1]], shape[axes[2]]),
        spacing=(spacing[axes[0]], spacing[axes[1]], spacing[axes[2]]),
        origin=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=tuple(float(value) + 0.0 for value in turned[:, ::-1].ravel()),  # + 0.0: no negative zeros
    )


def write_volume(file: Path, array: NDArray[Any], geometry: Geometry) -> None:
    """Write an array (z, y, x) compressed and atomically; the suffix chooses the format; bool becomes uint8.

    ITK raises nothing when the disk is full, so the file is unpacked again before it gets its name.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    import SimpleITK as sitk

    image = _to_itk(Volume(array, geometry))
    with atomic_file(file) as temporary:
        temporary.touch()  # says what is wrong with folder or name, which ITK does not
        try:
            sitk.WriteImage(image, utf8_path(temporary), useCompression=True)
            check_whole(temporary, image.GetNumberOfPixels() * image.GetSizeOfPixelComponent())
            written = written_geometry(temporary).shape
        except (RuntimeError, UserError) as error:
            raise _not_written(file, error) from None
        if written != geometry.shape:
            raise _not_written(
                file,
                UserError(
                    f"{written} voxels (z, y, x) were written", remedy="Free disk space and start again"
                ),
            )


def resample_volume(volume: Volume, target: Geometry, *, order: int, fill: float) -> Volume:
    """Interpolate a volume on another grid.

    Args:
        volume: what to resample.
        target: the new grid.
        order: 0 nearest (keeps the type: masks), 1 linear, 3 cubic B-spline (both give float32).
        fill: value outside the volume.
    """
    import SimpleITK as sitk

    interpolators = {0: sitk.sitkNearestNeighbor, 1: sitk.sitkLinear, 3: sitk.sitkBSpline}
    if order not in interpolators:
        raise ValueError(f"order must be 0, 1 or 3, got {order}")
    image = _to_itk(volume)
    if order > 0:
        image = sitk.Cast(image, sitk.sitkFloat32)
    resampled = sitk.Resample(
        image,
        target.shape[::-1],
        sitk.Transform(),
        interpolators[order],
        _plain(target.origin),
        target.spacing[::-1],
        _plain(target.direction),
        fill,
    )
    array = sitk.GetArrayFromImage(resampled)
    return Volume(array.astype(bool) if volume.array.dtype == np.bool_ and order == 0 else array, target)


def written_geometry(file: Path) -> Geometry:
    """The grid in the axis order of the file, directions as they are written."""
    import SimpleITK as sitk

    if not file.is_file():
        raise UserError("file does not exist", file=file, remedy="Correct the path, or copy the image there")
    reader = sitk.ImageFileReader()
    reader.SetFileName(utf8_path(file))
    if is_nifti_name(file):
        reader.SetImageIO(
            "NiftiImageIO"
        )  # else every reader of ITK opens the file to see whether it is its own
    else:
        check_nrrd_header(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        check_nifti(file, every_byte=True)  # says it better, where it is a damaged NIfTI file
        oblique = sform_geometry(read_header(file)) if _is_about_angles(error) else None
        if oblique is None:
            raise _unreadable(file, error) from None
        geometry = oblique
    else:
        _check_kind(file, reader)
        geometry = _header_geometry(reader)
    if not all(np.isfinite(step) and step > 0 for step in geometry.spacing):
        raise _not_positive(file, geometry.spacing)
    return geometry


def _voxels(file: Path, header: NiftiHeader | None, geometry: Geometry) -> NDArray[Any]:
    """Values of an image in the order of the file; NIfTI is unpacked here, once, everything else by ITK."""
    import SimpleITK as sitk

    if header is None and is_nifti_name(file):
        header = read_header(file)
    if header is not None and 0 in header.spacing:  # ITK would take 1 mm without a word
        raise _not_positive(file, header.spacing)
    if header is not None and header.dtype is not None and header.shape == geometry.shape:
        return read_voxels(file, header)
    check_nifti(file, every_byte=True)
    try:
        array = np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(utf8_path(file))))
    except RuntimeError as error:
        raise _unreadable(file, error) from None
    if header is None:
        check_whole(file, array.nbytes)
    return array


def _axis_plan(geometry: Geometry) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """For each canonical array axis (z, y, x): the array axis it comes from, and whether it is flipped.

    Pairs of patient and image axes are taken greedily by the largest direction cosine, as DICOM names axes.
    """
    cosines = np.array(geometry.direction).reshape(3, 3)[::-1, ::-1]  # patient (z, y, x) by array (z, y, x)
    left = np.abs(cosines)
    axes, flips = [0, 0, 0], [False, False, False]
    for _ in range(3):
        patient, image = np.unravel_index(int(np.argmax(left)), (3, 3))
        axes[patient], flips[patient] = int(image), bool(cosines[patient, image] < 0)
        left[patient, :] = -1
        left[:, image] = -1
    return (axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2])


def _to_itk(volume: Volume) -> sitk.Image:
    import SimpleITK as sitk

    geometry = volume.geometry
    # ITK knows neither truth values nor half precision nor foreign byte orders
    special: dict[str, np.dtype[Any]] = {}
    if volume.array.itemsize <= 2:
        special = {"b": np.dtype(np.uint8), "f": np.dtype(np.float32)}
    dtype = special.get(volume.array.dtype.kind, volume.array.dtype.newbyteorder("="))
    image = sitk.GetImageFromArray(volume.array.astype(dtype, copy=False))
    image.SetSpacing(geometry.spacing[::-1])
    image.SetOrigin(_plain(geometry.origin))
    image.SetDirection(_plain(geometry.direction))
    return image


def _plain(values: tuple[float, ...]) -> tuple[float, ...]:
    """Zero instead of values too small to mean anything: ITK's resampling goes astray on denormal numbers."""
    return tuple(0.0 if abs(value) < _NEGLIGIBLE else value for value in values)


def _header_geometry(reader: sitk.ImageFileReader) -> Geometry:
    size, spacing, origin = list(reader.GetSize()), list(reader.GetSpacing()), list(reader.GetOrigin())
    direction = np.eye(3)
    dim = len(size) if len(size) == 2 else 3  # a fourth axis of length 1 carries nothing
    direction[:dim, :dim] = np.array(reader.GetDirection()).reshape(len(size), len(size))[:dim, :dim]
    size, spacing, origin = [*size, 1][:3], [*spacing, 1.0][:3], [*origin, 0.0][:3]
    return Geometry(
        shape=(size[2], size[1], size[0]),
        spacing=(spacing[2], spacing[1], spacing[0]),
        origin=(origin[0], origin[1], origin[2]),
        direction=tuple(float(value) for value in direction.ravel()),
    )


def _check_kind(file: Path, reader: sitk.ImageFileReader) -> None:
    size = reader.GetSize()
    if len(size) not in (2, 3) and not (len(size) == 4 and size[3] == 1):
        raise UserError(
            "the image is not 3D",
            file=file,
            expected="3 axes",
            found=f"{len(size)} axes of size {size}",
            remedy="Store each time point or contrast as its own modality file",
        )
    if reader.GetNumberOfComponents() != 1:
        raise UserError(
            "the image has several values per voxel",
            file=file,
            expected="one",
            found=str(reader.GetNumberOfComponents()),
            remedy="Store grey values",
        )


def _not_written(file: Path, error: RuntimeError | UserError) -> UserError:
    found = error.found or error.what if isinstance(error, UserError) else str(error).splitlines()[-1]
    return UserError(
        "the image could not be written whole",
        file=file,
        found=found,
        remedy="Is the disk full? Free space and start the command again; nothing is half-written",
    )


def _not_positive(file: Path, spacing: tuple[float, ...]) -> UserError:
    return UserError(
        "spacing is not positive", file=file, found=f"{spacing} mm (z, y, x)", remedy="Mend the header"
    )


def _is_about_angles(error: RuntimeError) -> bool:
    return "orthonormal" in str(error)


def _unreadable(file: Path, error: RuntimeError) -> UserError:
    """One line from the many of ITK."""
    text = str(error)
    if _is_about_angles(error):
        what, found = "the axes are not at right angles (sheared direction matrix)", None
        remedy = "Resample the image on a straight grid"
    elif "Unable to determine ImageIO" in text or "not recognized as a NIFTI" in text:
        what, found, remedy = "not an image, or of an unknown format", None, "Export the file again"
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        what, found = "the image cannot be read", lines[-1].rpartition(": ")[2]
        remedy = "The file may be truncated or damaged: copy or export it again"
    return UserError(what, file=file, found=found, remedy=remedy)
