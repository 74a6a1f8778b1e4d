"""Images in memory as the volumes that files give: SimpleITK images, arrays with a grid, paths."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import Volume, canonical_geometry, read_volume

if TYPE_CHECKING:
    import SimpleITK as sitk

ImageLike: TypeAlias = (
    "str | PathLike[str] | sitk.Image | Volume | tuple[NDArray[Any], Geometry] | NDArray[Any]"
)
"""A file, a SimpleITK image, or an array (z, y, x) with its grid; a bare array needs ``spacing``."""


def as_volume(image: Any, spacing: tuple[float, float, float] | None = None) -> Volume:
    """The image with its grid, in its own axis order.

    Args:
        image: file, SimpleITK image, :class:`Volume`, ``(array, Geometry)`` or array (z, y, x).
        spacing: mm along (z, y, x) of an array without a grid.

    Raises:
        UserError: it is no image, not 3D, has no grid, or holds NaN or infinity.
    """
    if isinstance(image, str | PathLike):
        return read_volume(Path(image), canonical=False)
    if hasattr(image, "GetDirection"):
        volume = _from_itk(image)
    elif isinstance(image, Volume):
        volume = image
    elif isinstance(image, tuple) and len(image) == 2 and isinstance(image[1], Geometry):
        volume = _from_array(np.asarray(image[0]), image[1])
    else:
        volume = _from_array(_bare_array(image), _plain_grid(np.shape(image), spacing))
    if volume.array.dtype.kind not in "biuf":
        raise UserError(
            "the image does not hold numbers",
            found=str(volume.array.dtype),
            expected="an array of numbers (z, y, x)",
        )
    if volume.array.dtype.kind == "f" and not np.isfinite(volume.array).all():
        raise UserError(
            "the image holds NaN or infinity", remedy="Replace them by a number, e.g. -1000 HU for air"
        )
    return volume


def canonical(volume: Volume) -> Volume:
    """The same voxels with axes permuted and flipped to LPS, as files are read."""
    source, target = volume.geometry, canonical_geometry(volume.geometry)
    # axes are those of the image, so every cosine between an old and a new one is 0, 1 or -1
    old, new = (grid.matrix / np.array(grid.spacing) for grid in (source, target))
    cosines = new.T @ old
    axes = np.abs(cosines).argmax(axis=1)
    flipped = np.flatnonzero(cosines[np.arange(3), axes] < 0)
    turned = np.flip(volume.array.transpose(axes.tolist()), tuple(flipped.tolist()))
    return Volume(np.ascontiguousarray(turned), target)


def _from_itk(image: sitk.Image) -> Volume:
    import SimpleITK as sitk

    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise UserError(
            "the image is not 3D with one value per voxel",
            found=f"{image.GetDimension()} axes, {image.GetNumberOfComponentsPerPixel()} values",
            expected="a 3D image, one file for each modality",
        )
    size, step = image.GetSize(), image.GetSpacing()
    geometry = Geometry(
        (size[2], size[1], size[0]), (step[2], step[1], step[0]), image.GetOrigin(), image.GetDirection()
    )
    return Volume(sitk.GetArrayFromImage(image), geometry)


def _from_array(array: NDArray[Any], geometry: Geometry) -> Volume:
    if array.shape != tuple(geometry.shape):
        raise UserError(
            "the array does not fit its grid", expected=f"{geometry.shape} (z, y, x)", found=str(array.shape)
        )
    return Volume(array, geometry)


def _bare_array(image: Any) -> NDArray[Any]:
    if not isinstance(image, np.ndarray) or image.ndim != 3:
        raise UserError(
            "is no image",
            expected="a file, a SimpleITK image, or an array (z, y, x) with its grid",
            found=type(image).__name__ + (f" of {image.ndim} axes" if isinstance(image, np.ndarray) else ""),
        )
    return image


def _plain_grid(shape: tuple[int, ...], spacing: tuple[float, float, float] | None) -> Geometry:
    if spacing is None or len(spacing) != 3 or not all(step > 0 for step in spacing):
        raise UserError(
            "an array needs its spacing",
            expected="spacing=(z, y, x) in mm, or a pair (array, Geometry)",
            found=str(spacing),
        )
    z, y, x = shape
    return Geometry((z, y, x), (float(spacing[0]), float(spacing[1]), float(spacing[2])))
