"""What ITK hides about a NIfTI file, and its voxels decoded once.

ITK fills missing voxels with zeros, turns NaN into zero and a spacing of zero into one, silently. So the bytes are
looked at here. Length and header cost almost nothing: gzip stores the length of its content. :func:`read_voxels`
gives the voxels themselves, checks length and checksum on the way, and thus replaces ITK's reading where both are
wanted: unpacking is most of the cost of reading.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from nndet_psma.dataset.faults.kinds import Fault
from nndet_psma.dataset.images.nifti_header import NiftiHeader, parse_header

_BLOCK = 1 << 20
_NIFTI2_HEADER = 540
_GZIP_MAGIC = b"\x1f\x8b"
_ANY_STREAM = 47  # zlib's window bits for data with the header and checksum of gzip or of zlib
_MOST_UNPACKED = 1032  # bytes that one byte of deflate can stand for (RFC 1951: 258 in two bits)


def is_nifti_name(file: Path) -> bool:
    """Whether the name says NIfTI."""
    return file.name.lower().endswith((".nii", ".nii.gz"))


def is_compressed(file: Path) -> bool:
    """Whether the content is a gzip stream, whatever the name says."""
    with file.open("rb") as handle:
        return handle.read(2) == _GZIP_MAGIC


def read_header(file: Path) -> NiftiHeader | None:
    """The header of a NIfTI file; None when there is none inside.

    Raises:
        Fault: the compressed data break off or are damaged within the header.
    """
    try:
        with _open(file) as handle:
            return parse_header(handle.read(_NIFTI2_HEADER))
    except EOFError as error:
        raise truncated(file, str(error)) from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise damaged(file, str(error)) from None


def check_nifti(file: Path, *, every_byte: bool = False) -> None:
    """Compare a ``.nii`` or ``.nii.gz`` with its header and look for NaN and infinity; other formats pass.

    Args:
        file: the image.
        every_byte: decompress in any case, which also verifies the checksum of gzip.

    Raises:
        Fault: the file is truncated, its compressed data are damaged, or voxels are NaN or infinite.
    """
    header = read_header(file) if is_nifti_name(file) else None
    if header is None:
        return  # no NIfTI inside: the image reader will say so
    if not every_byte and header.floats is None and _stored_length(file) == header.length % (1 << 32):
        return
    if header.floats is None:
        _check_whole(file, header)
        return
    nan, infinite = count_not_finite(read_voxels(file, header))
    if nan or infinite:
        raise not_finite(file, nan, infinite)


def check_nifti_bytes(file: Path, length: int) -> None:
    """Unpack a NIfTI file whose voxels are known to have ``length`` bytes.

    Raises:
        Fault: there is no header, or the file is damaged or shorter than that.
    """
    header = read_header(file)
    if header is None:
        raise truncated(file, "no whole header")
    if header.length - header.offset != length:
        raise damaged(file, f"a header of {header.length - header.offset} bytes of voxels, not {length}")
    _check_whole(file, header)


def check_length(file: Path) -> None:
    """The quick part of :func:`check_nifti`: is the file as long as its header promises?

    Raises:
        Fault: it is shorter.
    """
    header = read_header(file) if is_nifti_name(file) else None
    if header is not None and _stored_length(file) != header.length % (1 << 32):
        _check_whole(file, header)  # the length did not settle it: several gzip members, or extra bytes


def read_voxels(file: Path, header: NiftiHeader) -> NDArray[Any]:
    """All values of a NIfTI file, unpacked once, length and checksum verified; NaN and infinity stay.

    Args:
        file: a file in whose header the type is known (``header.dtype``).
        header: of :func:`read_header`.

    Returns:
        values with slope and intercept applied, in native byte order, ``header.shape``.

    Raises:
        Fault: the file is truncated or damaged.
    """
    if header.dtype is None or header.value_type is None:
        raise ValueError(f"{file}: a type that is not decoded")
    bits = 8 * header.dtype.itemsize
    if header.length - header.offset != math.prod(header.shape) * header.dtype.itemsize:
        raise damaged(file, f"a header with {header.dtype} voxels of another size than {bits} bits")
    most = _MOST_UNPACKED * file.stat().st_size
    if header.length > most:  # before so much memory is asked for
        raise truncated(file, f"at most {most} of {header.length} bytes")
    raw = np.empty(header.length - header.offset, dtype=np.uint8)
    position = 0
    for block in _blocks(file):
        data = np.frombuffer(block, np.uint8)[max(0, header.offset - position) :]
        start = max(0, position - header.offset)
        room = data[: max(0, len(raw) - start)]
        raw[start : start + len(room)] = room
        position += len(block)
    if position < header.length:
        raise truncated(file, f"{position} of {header.length} bytes")
    stored = raw.view(header.dtype).reshape(header.shape)
    scaled = header.slope != 1 or header.intercept != 0
    if not scaled and stored.dtype.isnative:
        return stored
    values = np.empty(stored.shape, dtype=header.value_type)
    for plane, out in zip(stored, values, strict=True):  # slice by slice: double precision needs room
        out[...] = plane.astype(np.float64) * header.slope + header.intercept if scaled else plane
    return values


def count_not_finite(array: NDArray[Any]) -> tuple[int, int]:
    """How many values of an image are NaN, and how many infinite; slice by slice, to need little memory."""
    nan = sum(int(np.count_nonzero(np.isnan(plane))) for plane in array)
    return nan, sum(int(np.count_nonzero(np.isinf(plane))) for plane in array)


def not_finite(file: Path, nan: int, infinite: int = 0) -> Fault:
    """The fault for voxels that are no numbers."""
    return Fault(
        "NaN voxels" if nan else "infinite voxels",
        "voxels are NaN or infinite",
        file=file,
        found=f"{nan + infinite} such voxels",
        remedy="Export the image again, or replace them",
    )


def truncated(file: Path, found: str) -> Fault:
    """The fault for a file that is too short."""
    return Fault(
        "truncated file",
        "the file is truncated or damaged" if "of" not in found.split() else "the file is truncated",
        file=file,
        found=found,
        remedy="Copy or export the file again",
    )


def damaged(file: Path, found: str) -> Fault:
    """The fault for compressed data that cannot be unpacked."""
    return Fault(
        "damaged file",
        "the compressed data are damaged",
        file=file,
        found=found,
        remedy="Copy or export the file again",
    )


def _open(file: Path) -> IO[bytes]:
    """The uncompressed content; readers take a plain NIfTI under a name in .gz, too."""
    return cast(IO[bytes], gzip.open(file, "rb")) if is_compressed(file) else file.open("rb")


def _stored_length(file: Path) -> int:
    """Bytes of the uncompressed content modulo 2**32, as gzip notes them for its last member."""
    if not is_compressed(file):
        return file.stat().st_size % (1 << 32)
    with file.open("rb") as handle:
        handle.seek(-4, 2)
        return int(struct.unpack("<I", handle.read(4))[0])


def _blocks(file: Path) -> Iterator[bytes]:
    """The uncompressed content in pieces, whether it is packed or not."""
    if is_compressed(file):
        yield from unpacked_blocks(file)
        return
    with file.open("rb") as handle:
        while block := handle.read(_BLOCK):
            yield block


def unpacked_blocks(file: Path, start: int = 0) -> Iterator[bytes]:
    """What the gzip or zlib stream from byte ``start`` on holds, in pieces, with its checksum verified.

    zlib itself, not the gzip module: it needs a third less time. Bytes after the last gzip member are padding.

    Raises:
        Fault: the stream breaks off or is damaged; only after every good piece.
    """
    with file.open("rb") as handle:
        handle.seek(start)
        block = handle.read(_BLOCK)
        unpacker = zlib.decompressobj(_ANY_STREAM)
        try:
            while block:
                # bounded: a megabyte of compressed zeros is a gigabyte
                yield unpacker.decompress(block, _BLOCK)
                if unpacker.eof:
                    block = unpacker.unused_data or handle.read(_BLOCK)
                    if block[:2] != _GZIP_MAGIC:
                        return
                    unpacker = zlib.decompressobj(_ANY_STREAM)
                else:
                    block = unpacker.unconsumed_tail or handle.read(_BLOCK)
        except zlib.error as error:
            text = "its checksum (CRC) is wrong" if "data check" in str(error) else str(error)
            raise damaged(file, text) from None
        raise truncated(file, "the compressed data break off")


def _check_whole(file: Path, header: NiftiHeader) -> None:
    found = sum(len(block) for block in _blocks(file))
    if found < header.length:
        raise truncated(file, f"{found} of {header.length} bytes")
