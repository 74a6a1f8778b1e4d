"""What ITK hides about a NIfTI file: it fills missing voxels with zeros, and turns NaN into zero, silently.

So the bytes are looked at before ITK reads them. Compressed integer images cost almost nothing: gzip stores the
length of its content; floating-point images are decompressed once more to find NaN.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np

from nndet_psma.core.errors import UserError

_BLOCK = 1 << 20  # a multiple of every size of number
_NIFTI2_HEADER = 540
_GZIP_MAGIC = b"\x1f\x8b"
_FLOATS = {16: "f4", 64: "f8"}  # NIfTI codes of floating-point types


@dataclass(frozen=True)
class NiftiHeader:
    """What the header of a NIfTI-1 or NIfTI-2 file promises.

    Attributes:
        offset: first byte of the voxels.
        length: bytes of the uncompressed file.
        floats: type of the voxels when they are floating-point numbers, else None.
    """

    offset: int
    length: int
    floats: np.dtype | None


def check_nifti(file: Path, *, every_byte: bool = False) -> None:
    """Compare a ``.nii`` or ``.nii.gz`` with its header and look for NaN and infinity; other formats pass.

    Args:
        file: the image.
        every_byte: decompress in any case, which also verifies the checksum of gzip.

    Raises:
        UserError: the file is truncated, its compressed data are damaged, or voxels are NaN or infinite.
    """
    if not file.name.lower().endswith((".nii", ".nii.gz")):
        return
    try:
        with _open(file) as handle:
            header = parse_header(handle.read(_NIFTI2_HEADER))
        if header is None:
            return  # no NIfTI inside: the image reader will say so
        if not every_byte and header.floats is None and _stored_length(file) == header.length % (1 << 32):
            return
        found, bad = _scan(file, header)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(file, "the file is truncated or damaged", str(error)) from None
    if found < header.length:
        raise _damaged(file, "the file is truncated", f"{found} of {header.length} bytes")
    if bad:
        raise not_finite(file, bad)


def check_length(file: Path) -> None:
    """The quick part of :func:`check_nifti`: is the file as long as its header promises?

    Raises:
        UserError: it is shorter.
    """
    if not file.name.lower().endswith((".nii", ".nii.gz")):
        return
    try:
        with _open(file) as handle:
            header = parse_header(handle.read(_NIFTI2_HEADER))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(file, "the file is truncated or damaged", str(error)) from None
    if header is not None and _stored_length(file) != header.length % (1 << 32):
        check_nifti(
            file, every_byte=True
        )  # the length did not settle it: several gzip members, or extra bytes


def not_finite(file: Path, count: int) -> UserError:
    """The error for voxels that are no numbers."""
    return UserError(
        "voxels are NaN or infinite",
        file=file,
        found=f"{count} such voxels",
        remedy="Export the image again, or replace them",
    )


def parse_header(header: bytes) -> NiftiHeader | None:
    """Read the first 540 bytes of a file; None when they are no NIfTI header."""
    for order in ("<", ">"):
        if len(header) >= 348 and struct.unpack_from(f"{order}i", header)[0] == 348:
            dims = struct.unpack_from(f"{order}8h", header, 40)
            code, bits = struct.unpack_from(f"{order}2h", header, 70)
            offset = int(struct.unpack_from(f"{order}f", header, 108)[0])
        elif len(header) >= 540 and struct.unpack_from(f"{order}i", header)[0] == 540:
            code, bits = struct.unpack_from(f"{order}2h", header, 12)
            dims = struct.unpack_from(f"{order}8q", header, 16)
            offset = struct.unpack_from(f"{order}q", header, 168)[0]
        else:
            continue
        voxels = 1
        for size in dims[1 : 1 + max(0, min(dims[0], 7))]:
            voxels *= max(size, 1)
        floats = np.dtype(order + _FLOATS[code]) if code in _FLOATS else None
        return NiftiHeader(offset, offset + voxels * bits // 8, floats)
    return None


def _open(file: Path) -> IO[bytes]:
    """The uncompressed content; readers take a plain NIfTI under a name in .gz, too."""
    return cast(IO[bytes], gzip.open(file, "rb")) if _is_compressed(file) else file.open("rb")


def _is_compressed(file: Path) -> bool:
    with file.open("rb") as handle:
        return handle.read(2) == _GZIP_MAGIC


def _stored_length(file: Path) -> int:
    """Bytes of the uncompressed content modulo 2**32, as gzip notes them for its last member."""
    if not _is_compressed(file):
        return file.stat().st_size % (1 << 32)
    with file.open("rb") as handle:
        handle.seek(-4, 2)
        return int(struct.unpack("<I", handle.read(4))[0])


def _scan(file: Path, header: NiftiHeader) -> tuple[int, int]:
    """Read everything: bytes found, and how many voxels are not finite."""
    bad = 0
    with _open(file) as handle:
        found = len(handle.read(header.offset))
        while block := handle.read(_BLOCK):
            voxels = block[: max(0, header.length - found)]
            found += len(block)
            if header.floats is not None:
                whole = len(voxels) // header.floats.itemsize
                bad += int(np.count_nonzero(~np.isfinite(np.frombuffer(voxels, header.floats, whole))))
    return found, bad


def _damaged(file: Path, what: str, found: str) -> UserError:
    return UserError(what, file=file, found=found, remedy="Copy or export the file again")
