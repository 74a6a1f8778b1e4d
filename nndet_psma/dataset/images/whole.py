"""Is an image file whole and undamaged? ITK fills in what is missing, skips checksums, and writes without a word."""

from __future__ import annotations

from pathlib import Path

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.nifti_bytes import (
    check_nifti_bytes,
    damaged,
    is_nifti_name,
    truncated,
    unpacked_blocks,
)

_LONGEST_LINE = 1 << 16
_SEVERAL = (b"LIST", b"%")  # how both formats name several files of data


def check_whole(file: Path, length: int) -> None:
    """Unpack all of a file: its checksum must be right, and its voxels as many as they should be.

    Uncompressed MetaImage and NRRD have no checksum, and ITK itself refuses them when they are cut: they pass.

    Args:
        file: NIfTI, MetaImage or NRRD.
        length: bytes of its voxels, uncompressed.

    Raises:
        Fault: it is damaged or of another length.
        UserError: compressed data that lie in several files.
    """
    if is_nifti_name(file):
        check_nifti_bytes(file, length)
        return
    place = _packed_data(file)
    if place is None:
        return
    data, start = place
    found = sum(map(len, unpacked_blocks(data, start)))
    if found < length:
        raise truncated(data, f"{found} of {length} bytes of voxels")
    if found > length:
        raise damaged(data, f"{found} bytes of voxels where the header says {length}")


def _packed_data(file: Path) -> tuple[Path, int] | None:
    """File and first byte of the compressed data; None where they are not compressed."""
    with file.open("rb") as handle:
        first = handle.readline(_LONGEST_LINE)
        is_nrrd = first.startswith(b"NRRD")
        fields: dict[bytes, bytes] = {}
        line = handle.readline(_LONGEST_LINE) if is_nrrd else first
        while line.strip():
            key, _, value = line.partition(b":" if is_nrrd else b"=")
            fields[key.strip().lower().replace(b" ", b"")] = value.strip()
            if not is_nrrd and key.strip() == b"ElementDataFile":
                break
            line = handle.readline(_LONGEST_LINE)
        start = handle.tell()
    if is_nrrd:
        packed = fields.get(b"encoding") not in (b"raw", b"ascii", b"text", b"txt")
        elsewhere = fields.get(b"datafile", b"")
    else:
        packed = fields.get(b"compresseddata", b"").lower() in (b"true", b"1")
        elsewhere = fields.get(b"elementdatafile", b"")
        elsewhere = b"" if elsewhere.upper() == b"LOCAL" else elsewhere
    if not packed:
        return None
    if any(word in elsewhere for word in _SEVERAL) or {b"lineskip", b"byteskip"} & set(fields):
        raise UserError(
            "compressed data in several files, or with parts to skip, cannot be verified",
            file=file,
            expected="one compressed block",
            remedy="Write the image anew into one file, such as .nii.gz",
        )
    return (file.parent / elsewhere.decode("utf-8", "replace"), 0) if elsewhere else (file, start)
