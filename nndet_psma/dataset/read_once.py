"""Reading an image for a check and for everything after it: unpacked once, verified on the way."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.geometry import Geometry
from nndet_psma.dataset.images import Volume, canonical_geometry, read_geometry, read_volume
from nndet_psma.dataset.nifti_bytes import (
    count_not_finite,
    is_nifti_name,
    not_finite,
    read_header,
    read_voxels,
)
from nndet_psma.dataset.nifti_header import NiftiHeader


def read_once(file: Path, header: NiftiHeader | None = None, geometry: Geometry | None = None) -> Volume:
    """The volume of :func:`~nndet_psma.dataset.images.read_volume`, canonical, for about half of its time.

    NIfTI files are unpacked here and not by ITK, so that length, checksum, NaN and infinity are verified in the one
    pass that decodes the voxels; other formats go to ITK.

    Args:
        file: the image.
        header: of :func:`~nndet_psma.dataset.nifti_bytes.read_header`, where it has been read already.
        geometry: in the axis order of the file, where it is known already.

    Raises:
        UserError: the file cannot be read, is truncated or damaged, or holds NaN or infinity.
    """
    if header is None and is_nifti_name(file):
        header = read_header(file)
    if geometry is None:
        geometry = read_geometry(file, canonical=False)
    if header is None or header.dtype is None or header.shape != geometry.shape:
        return read_volume(file)
    array = read_voxels(file, header)
    if array.dtype.kind == "f":
        nan, infinite = count_not_finite(array)
        if nan or infinite:
            raise not_finite(file, nan, infinite)
    return turn(array, geometry)


def turn(array: NDArray[Any], geometry: Geometry) -> Volume:
    """Permute and flip the axes of an array in the order of its file to LPS; a copy only where that moves voxels."""
    canonical = canonical_geometry(geometry)
    own, wanted = (np.array(grid.direction).reshape(3, 3)[:, ::-1] for grid in (geometry, canonical))
    cosines = own.T @ wanted  # a signed permutation: columns are the canonical axes (z, y, x)
    axes = np.abs(cosines).argmax(axis=0)
    flipped = tuple(axis for axis in range(3) if cosines[axes[axis], axis] < 0)
    return Volume(np.ascontiguousarray(np.flip(array.transpose(axes), flipped)), canonical)


def content_digest(array: NDArray[Any]) -> bytes:
    """Hash of the values of a volume, whatever the type they are stored in; needs the room of one slice.

    Slices of whole numbers are hashed as 16-bit integers, others as 32-bit floating-point numbers.
    """
    digest = hashlib.sha1(repr(array.shape).encode(), usedforsecurity=False)
    for plane in array:
        with np.errstate(invalid="ignore"):
            whole = plane.astype(np.int16)
        same = plane.dtype == np.int16 or np.array_equal(whole, plane)
        digest.update(np.ascontiguousarray(whole if same else plane.astype(np.float32)).data)
    return digest.digest()
