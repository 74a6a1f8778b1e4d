"""The header of a NIfTI file as it is written, before any reader mends it silently."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_COMPLEX = (32, 1792, 2048)


@dataclass(frozen=True)
class NiftiHeader:
    """What the header of a NIfTI-1 or NIfTI-2 file promises.

    Attributes:
        offset: first byte of the voxels.
        length: bytes of the uncompressed file.
        shape: (z, y, x), slowest axis first, without trailing axes of length 1.
        spacing: size of a voxel along ``shape``, in the file's unit, as written.
        dtype: type of the stored voxels, None for colours, complex numbers and other types we do not decode.
        slope: factor of the stored values, 1 where none is given.
        intercept: added after the factor.
        is_complex: voxels are complex numbers.
        forms: codes of qform and sform; 0 means that there is none.
        affines: qform and sform as 3x4 arrays (file units, RAS), each None where the code is 0.
    """

    offset: int
    length: int
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    dtype: np.dtype[Any] | None
    slope: float = 1.0
    intercept: float = 0.0
    is_complex: bool = False
    forms: tuple[int, int] = (1, 1)
    affines: tuple[NDArray[np.float64] | None, NDArray[np.float64] | None] = (None, None)

    @property
    def floats(self) -> np.dtype[Any] | None:
        """The type of the voxels when they are floating-point numbers."""
        return self.dtype if self.dtype is not None and self.dtype.kind == "f" else None

    @property
    def value_type(self) -> np.dtype[Any] | None:
        """Type of the values after slope and intercept, as ITK gives them."""
        if self.dtype is None or (self.slope == 1 and self.intercept == 0):
            return None if self.dtype is None else self.dtype.newbyteorder("=")
        return np.dtype(np.float64 if self.dtype.itemsize == 8 and self.dtype.kind == "f" else np.float32)


def parse_header(header: bytes) -> NiftiHeader | None:
    """Read the first 540 bytes of a file; None when they are no NIfTI header."""
    for order in ("<", ">"):
        if len(header) >= 348 and struct.unpack_from(f"{order}i", header)[0] == 348:
            return _nifti1(header, order)
        if len(header) >= 540 and struct.unpack_from(f"{order}i", header)[0] == 540:
            return _nifti2(header, order)
    return None


def _nifti1(header: bytes, order: str) -> NiftiHeader:
    def floats(count: int, position: int) -> tuple[float, ...]:
        return struct.unpack_from(f"{order}{count}f", header, position)

    dims = struct.unpack_from(f"{order}8h", header, 40)
    code, bits = struct.unpack_from(f"{order}2h", header, 70)
    forms = struct.unpack_from(f"{order}2h", header, 252)
    quaternion, rows = floats(6, 256), floats(12, 280)
    offset = floats(1, 108)[0]
    return _header(order, dims, code, bits, floats(8, 76), offset, floats(2, 112), forms, quaternion, rows)


def _nifti2(header: bytes, order: str) -> NiftiHeader:
    def floats(count: int, position: int) -> tuple[float, ...]:
        return struct.unpack_from(f"{order}{count}d", header, position)

    code, bits = struct.unpack_from(f"{order}2h", header, 12)
    dims = struct.unpack_from(f"{order}8q", header, 16)
    offset = struct.unpack_from(f"{order}q", header, 168)[0]
    forms = struct.unpack_from(f"{order}2i", header, 344)
    quaternion, rows = floats(6, 352), floats(12, 400)
    return _header(order, dims, code, bits, floats(8, 104), offset, floats(2, 176), forms, quaternion, rows)


def _header(
    order: str,
    dims: tuple[int, ...],
    code: int,
    bits: int,
    pixdim: tuple[float, ...],
    offset: float,
    scale: tuple[float, ...],
    forms: tuple[int, ...],
    quaternion: tuple[float, ...],
    rows: tuple[float, ...],
) -> NiftiHeader:
    sizes = [max(size, 1) for size in dims[1 : 1 + max(0, min(dims[0], 7))]]
    voxels = int(np.prod(sizes, dtype=object)) if sizes else 1
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    slope, intercept = (value if np.isfinite(value) else 0.0 for value in scale)
    start = int(offset) if np.isfinite(offset) else 0
    return NiftiHeader(
        offset=start,
        length=start + voxels * bits // 8,
        shape=tuple(reversed([*sizes, 1, 1, 1][: max(3, len(sizes))])),
        spacing=tuple(reversed(pixdim[1 : 1 + max(1, len(sizes))])),
        dtype=np.dtype(order + _TYPES[code]) if code in _TYPES else None,
        slope=slope or 1.0,
        intercept=intercept,
        is_complex=code in _COMPLEX,
        forms=(forms[0], forms[1]),
        affines=(
            _quaternion_affine(quaternion, pixdim) if forms[0] > 0 else None,
            np.array(rows, dtype=np.float64).reshape(3, 4) if forms[1] > 0 else None,
        ),
    )


def _quaternion_affine(values: tuple[float, ...], pixdim: tuple[float, ...]) -> NDArray[np.float64]:
    """The qform ("method 2" of the NIfTI-1 standard): unit quaternion b, c, d, then offset; pixdim[0]: handedness."""
    b, c, d = values[:3]
    a = float(np.sqrt(max(0.0, 1 - b * b - c * c - d * d)))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    handed = np.array([1.0, 1.0, -1.0 if pixdim[0] < 0 else 1.0])
    return np.column_stack([rotation * np.array(pixdim[1:4]) * handed, np.array(values[3:6])])
