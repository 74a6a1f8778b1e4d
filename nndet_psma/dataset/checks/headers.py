"""What a file says before its voxels are read: is it there, is it an image, and where does it lie?"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.checks.nifti import header_faults, packing_faults
from nndet_psma.dataset.faults.kinds import KINDS, Fault
from nndet_psma.dataset.images.directions import straightened
from nndet_psma.dataset.images.images import canonical_geometry, written_geometry
from nndet_psma.dataset.images.nifti_bytes import (
    check_length,
    check_nifti,
    is_nifti_name,
    read_header,
)
from nndet_psma.dataset.images.nifti_header import NiftiHeader

GRID_TOLERANCE_MM = 1e-2
_METRES_BELOW_MM = 0.02
_LARGEST_SPACING_MM = 50.0
_THICK_SLICES_MM = 8.0
_FEW_SLICES = 5
# beginnings of what the image reader says, by kind
_READER_SAYS = {
    "the image is not 3D": "not 3D",
    "the image has several values per voxel": "several values per voxel",
    "spacing is not positive": "spacing not positive",
    "the axes are not at right angles": "sheared axes",
    "not an image": "not an image",
}


@dataclass(frozen=True)
class FileHead:
    """What is known of an image without its voxels.

    Attributes:
        file: the image.
        geometry: canonical grid; None when the file cannot be used.
        own_geometry: grid in the axis order of the file; None likewise.
        header: of a NIfTI, as written.
        faults: all of them.
    """

    file: Path
    geometry: Geometry | None = None
    header: NiftiHeader | None = None
    faults: list[Fault] = field(default_factory=list)
    own_geometry: Geometry | None = None

    @property
    def usable(self) -> bool:
        """Whether the voxels can be read: there is a grid, and no fault of the file is an error."""
        return self.geometry is not None and all(KINDS[f.kind].severity == "warning" for f in self.faults)


def read_head(file: Path) -> FileHead:
    """Look at an image without reading its voxels; never raises :class:`UserError`."""
    closed = file_fault(file)
    if closed is not None:
        return FileHead(file, faults=[closed])
    faults: list[Fault] = []
    header: NiftiHeader | None = None
    try:
        if is_nifti_name(file):
            faults += packing_faults(file)
            if _has_error(faults):
                return FileHead(file, faults=faults)
            header = read_header(file)
            faults += header_faults(file, header)
            if _has_error(faults):
                return FileHead(file, None, header, faults)
            check_length(file)
        written = _read_grid(file, header)
        geometry = straightened(written, file)
        if geometry is not written:
            faults.append(_rounded_axes(file, written))
    except Fault as fault:
        return FileHead(file, None, header, [*faults, fault])
    except OSError as error:
        return FileHead(file, None, header, [*faults, _os_fault(file, error)])
    return FileHead(file, canonical_geometry(geometry), header, faults, geometry)


def _read_grid(file: Path, header: NiftiHeader | None) -> Geometry:
    try:
        written = written_geometry(file)
        straightened(written, file)  # sheared axes are refused
        return written
    except Fault:
        raise
    except UserError as error:
        fault = _reader_fault(error)
        if fault.kind in ("not an image", "unreadable image") and header is not None:
            check_nifti(file, every_byte=True)  # damage may be why the reader does not know its own format
        raise fault from None


def _rounded_axes(file: Path, written: Geometry) -> Fault:
    matrix = np.array(written.direction).reshape(3, 3)
    return Fault(
        "rounded axes",
        "the axes are not quite at right angles; the nearest right angles are taken",
        file=file,
        found=str(np.round(matrix, 6).tolist()),
        remedy="Export the image again with all digits, where voxels must lie to a hundredth of a millimetre",
    )


def file_fault(file: Path) -> Fault | None:
    """Why a file cannot be opened at all, or None."""
    try:
        status = file.stat()
        if stat.S_ISDIR(status.st_mode):
            return Fault(
                "folder instead of file",
                "this is a folder",
                file=file,
                expected="a file",
                remedy="Move the image out of the folder, or remove the folder",
            )
        if status.st_size == 0:
            return Fault("empty file", "the file is empty", file=file, remedy="Copy or export it again")
        with file.open("rb") as handle:
            handle.read(1)
    except OSError as error:
        return _os_fault(file, error)
    return None


def grid_faults(head: FileHead, dim: int) -> Iterator[Fault]:
    """Doubtful sizes of a grid; asked of one file of a case, for the others must lie on the same grid."""
    geometry, file = head.geometry, head.file
    if geometry is None:
        return
    spacing = geometry.spacing if dim == 3 and geometry.shape[0] > 1 else geometry.spacing[1:]
    shown = f"{' x '.join(f'{step:g}' for step in spacing)} mm"
    if max(spacing) < _METRES_BELOW_MM:
        remedy = "Multiply spacing and origin by 1000: the header must be in mm"
        yield Fault(
            "spacing in metres", "the spacing seems to be in metres", file=file, found=shown, remedy=remedy
        )
    if max(spacing) > _LARGEST_SPACING_MM:
        yield Fault(
            "spacing too large",
            "the voxels are too large for a body",
            file=file,
            expected=f"at most {_LARGEST_SPACING_MM:g} mm",
            found=shown,
            remedy="Correct the header; was the spacing written in micrometres?",
        )
    elif dim == 3 and geometry.spacing[0] > _THICK_SLICES_MM and geometry.shape[0] > 1:
        yield Fault(
            "thick slices",
            "the slices are far apart for small nodes",
            file=file,
            expected=f"at most {_THICK_SLICES_MM:g} mm",
            found=f"{geometry.spacing[0]:g} mm",
            remedy="Use the thinner reconstruction if there is one",
        )
    if dim == 3 and geometry.shape[0] < _FEW_SLICES:
        yield Fault(
            "few slices",
            "very few slices",
            file=file,
            expected=f"at least {_FEW_SLICES}",
            found=str(geometry.shape[0]),
            remedy="Was the whole series exported? For single slices set dim to 2",
        )


def dimension_fault(head: FileHead) -> Fault | None:
    """Several slices where the description says 2D."""
    if head.geometry is None or head.geometry.shape[0] == 1:
        return None
    return Fault(
        "wrong dimension",
        "several slices in a 2D data set",
        file=head.file,
        expected="one slice",
        found=f"shape {head.geometry.shape} (z, y, x)",
        remedy="Set dim to 3 in dataset.json, or store every slice as a case",
    )


def mismatch_fault(head: FileHead, reference: FileHead) -> Fault | None:
    """How the grid of a file differs from that of the first image, or None."""
    geometry, other = head.geometry, reference.geometry
    if geometry is None or other is None or geometry.same_grid(other, GRID_TOLERANCE_MM):
        return None
    name = _differing(geometry, other)
    expected, found = getattr(other, name), getattr(geometry, name)
    distance = ""
    if name != "shape":
        expected, found = (tuple(round(value, 4) for value in values) for values in (expected, found))
        distance = f", corners up to {_corner_distance(geometry, other):.3g} mm apart"
    return Fault(
        f"{name} mismatch",
        "not on the grid of the first image",
        file=head.file,
        expected=f"{name} {expected} of {reference.file.name}",
        found=f"{name} {found}{distance}",
        remedy="Resample it on that grid (masks with nearest neighbour)",
    )


def _differing(geometry: Geometry, other: Geometry) -> str:
    """The property that explains the others: rotated axes shift corners, not the other way round."""
    for name in ("shape", "spacing", "direction"):
        if not np.allclose(getattr(geometry, name), getattr(other, name), rtol=0, atol=1e-4):
            return name
    return "origin"


def _corner_distance(first: Geometry, second: Geometry) -> float:
    corners = np.array(list(product(*((0, n) for n in first.shape))), dtype=np.float64)
    return float(np.linalg.norm(first.to_patient(corners) - second.to_patient(corners), axis=1).max())


def _reader_fault(error: UserError) -> Fault:
    kind = next((kind for text, kind in _READER_SAYS.items() if error.what.startswith(text)), None)
    return Fault(
        kind or "unreadable image",
        error.what,
        file=error.file,
        expected=error.expected,
        found=error.found,
        remedy=error.remedy or "Copy or export the file again",
    )


def _os_fault(file: Path, error: OSError) -> Fault:
    if error.errno == errno.ELOOP:
        remedy = "Link to the file itself, or copy it"
        return Fault("link loop", "a symbolic link that leads back to itself", file=file, remedy=remedy)
    if error.errno in (errno.ENOENT, errno.ENOTDIR) and file.is_symlink():
        remedy = "Mend the link, or copy the file"
        return Fault("broken link", "a symbolic link to a file that does not exist", file=file, remedy=remedy)
    if error.errno in (errno.EACCES, errno.EPERM):
        return Fault("no permission", "the file may not be read", file=file, remedy="Check its permissions")
    return Fault(
        "unreadable image",
        "the file cannot be read",
        file=file,
        found=str(error.strerror),
        remedy="Check disk and network, then copy the file again",
    )


def _has_error(faults: list[Fault]) -> bool:
    return any(KINDS[fault.kind].severity == "error" for fault in faults)
