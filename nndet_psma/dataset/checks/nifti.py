"""What ITK mends or guesses in the header of a NIfTI file without a word."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nndet_psma.dataset.faults.kinds import Fault
from nndet_psma.dataset.images.nifti_bytes import is_compressed
from nndet_psma.dataset.images.nifti_header import NiftiHeader, parse_header

_FORMS_TOLERANCE_MM = 0.1


def packing_faults(file: Path) -> Iterator[Fault]:
    """Contradictions between name and compression."""
    compressed, named = is_compressed(file), file.name.lower().endswith(".gz")
    if compressed and not named:
        yield Fault(
            "compressed under .nii",
            "a compressed file without .gz in its name",
            file=file,
            remedy="Rename it to .nii.gz",
        )
    if named and not compressed:
        with file.open("rb") as handle:
            is_nifti = parse_header(handle.read(540)) is not None
        if is_nifti:
            remedy = "Compress it with gzip, or rename it to .nii"
            yield Fault("plain under .nii.gz", "not compressed, despite its name", file=file, remedy=remedy)
        else:
            yield Fault(
                "not gzip", "neither gzip nor NIfTI inside", file=file, remedy="Copy or export it again"
            )


def header_faults(file: Path, header: NiftiHeader | None) -> Iterator[Fault]:
    """What ITK would mend or guess without a word."""
    if header is None:
        yield Fault("not an image", "no NIfTI inside", file=file, remedy="Copy or export the file again")
        return
    if header.is_complex:
        remedy = "Store the magnitude"
        yield Fault("complex voxels", "the voxels are complex numbers", file=file, remedy=remedy)
    steps = header.spacing[-3:]
    if not all(np.isfinite(step) and step > 0 for step in steps):
        yield Fault(
            "spacing not positive",
            "spacing is not positive",
            file=file,
            expected="millimetres",
            found=f"{tuple(round(step, 4) for step in steps)} (z, y, x)",
            remedy="Mend the header: pixdim must hold the size of a voxel",
        )
    elif header.forms[0] <= 0 and header.forms[1] <= 0:
        yield Fault(
            "no orientation",
            "the header says nothing of position and orientation",
            file=file,
            expected="qform_code or sform_code above 0",
            remedy="Export the image again with its orientation, or left and right may be swapped",
        )
    elif all(affine is not None for affine in header.affines):
        yield from _form_faults(file, header)


def _form_faults(file: Path, header: NiftiHeader) -> Iterator[Fault]:
    qform, sform = header.affines
    if qform is None or sform is None:
        return
    corners = np.array(list(product(*((0, size) for size in header.shape[-3:][::-1]))), dtype=np.float64)
    apart = np.linalg.norm(_applied(qform, corners) - _applied(sform, corners), axis=1).max()
    if apart > _FORMS_TOLERANCE_MM:
        yield Fault(
            "qform and sform differ",
            "qform and sform place the image differently",
            file=file,
            found=f"corners up to {apart:.3g} mm apart",
            remedy="Write both alike; programs that prefer the other one will see the image elsewhere",
        )


def _applied(affine: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points @ affine[:, :3].T + affine[:, 3]
