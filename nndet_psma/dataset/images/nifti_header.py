"""The header of a NIfTI file as it is written, before any reader mends it silently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

_DECODED = (*(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), "float32", "float64")
_QUATERNION = ("quatern_b", "quatern_c", "quatern_d")
_OTHER_UNITS = (1, 3)  # metre, micrometre
_OFFSET = ("qoffset_x", "qoffset_y", "qoffset_z")


@dataclass(frozen=True)
class NiftiHeader:
    """What the header of a NIfTI-1 or NIfTI-2 file promises.

    Attributes:
        offset: first byte of the voxels.
        length: bytes of the uncompressed file.
        shape: (z, y, x), slowest axis first, without trailing axes of length 1.
        spacing: size of a voxel along ``shape``, in the file's unit, as written.
        dtype: type of the stored voxels, None for colours, complex numbers and other types we do not decode.
        slope: factor of the stored values, 1 where none is given (stored as 0).
        intercept: added after the factor; 0 where no slope is given.
        is_complex: voxels are complex numbers.
        forms: codes of qform and sform; 0 means that there is none.
        affines: qform and sform as 3x4 arrays (file units, RAS), each None where the code is 0.
        in_mm: the unit is millimetre, or not told.
        idle_intercept: an intercept stands beside a slope of 0. The standard then has no scaling at all; ITK adds it.
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
    in_mm: bool = True
    idle_intercept: bool = False

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
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    kinds: tuple[Any, ...] = (Nifti1Header, Nifti2Header)
    for kind in kinds:
        for order in "<>" if len(header) >= kind.sizeof_hdr else "":
            raw = kind(header[: kind.sizeof_hdr], order, check=False)  # a check would mend
            if raw["sizeof_hdr"] == kind.sizeof_hdr:
                return _as_written(raw)
    return None


def _as_written(raw: Nifti1Header) -> NiftiHeader:
    """From the fields themselves: nibabel's getters mend zooms and slopes, or raise."""
    from nibabel.nifti1 import data_type_codes

    dims, pixdim = raw["dim"].tolist(), raw["pixdim"].tolist()
    sizes = [max(size, 1) for size in dims[1 : 1 + max(0, min(dims[0], 7))]]
    voxels = int(np.prod(sizes, dtype=object)) if sizes else 1
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    start, slope, intercept = (
        float(value) if np.isfinite(value) else 0.0
        for value in (raw["vox_offset"], raw["scl_slope"], raw["scl_inter"])
    )
    label = str(data_type_codes.label.get(int(raw["datatype"]), ""))
    forms = int(raw["qform_code"]), int(raw["sform_code"])
    return NiftiHeader(
        offset=int(start),
        length=int(start) + voxels * int(raw["bitpix"]) // 8,
        shape=tuple(reversed([*sizes, 1, 1, 1][: max(3, len(sizes))])),
        spacing=tuple(reversed(pixdim[1 : 1 + max(1, len(sizes))])),
        dtype=np.dtype(label).newbyteorder(raw.endianness) if label in _DECODED else None,
        slope=slope or 1.0,
        intercept=intercept if slope else 0.0,
        is_complex=label.startswith("complex"),
        forms=forms,
        affines=(_qform(raw) if forms[0] > 0 else None, raw.get_sform()[:3] if forms[1] > 0 else None),
        in_mm=int(raw["xyzt_units"]) & 7 not in _OTHER_UNITS,
        idle_intercept=slope == 0 and intercept != 0,
    )


def _qform(raw: Nifti1Header) -> NDArray[np.float64]:
    """Affine of the unit quaternion; not nibabel's ``get_qform``, which raises where pixdim[0] is the usual 0."""
    from nibabel.quaternions import quat2mat

    b, c, d = (float(raw[name]) for name in _QUATERNION)
    a = np.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    handed = np.array([1.0, 1.0, -1.0 if raw["pixdim"][0] < 0 else 1.0])
    return np.column_stack(
        [quat2mat([a, b, c, d]) * (raw["pixdim"][1:4] * handed), [raw[name] for name in _OFFSET]]
    )
