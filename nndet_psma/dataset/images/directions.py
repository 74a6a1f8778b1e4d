"""Direction matrices that are nearly orthonormal: some programs round the cosines."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER
from nndet_psma.dataset.images.nifti_header import NiftiHeader

_EXACT = 1e-4
"""Largest entry of M'M - I that ITK takes for orthonormal in NIfTI; nothing is changed or told up to here."""
ROUNDED_DEGREES = 0.1
"""How far from right angles rounding brings axes: cosines of three decimals, wrong by 0.0005 each in both axes."""
_LPS = np.diag([-1.0, -1.0, 1.0])  # NIfTI runs to the right and to the front


def straightened(geometry: Geometry, file: Path) -> Geometry:
    """The grid with the orthonormal direction matrix nearest to its own, and a warning where they differ.

    The nearest one is the orthogonal factor of the polar decomposition: it spreads the rounding over all axes.

    Raises:
        UserError: the axes are further from right angles than rounding brings them.
    """
    matrix = np.array(geometry.direction).reshape(3, 3)
    off = float(np.abs(matrix.T @ matrix - np.eye(3)).max())
    if off <= _EXACT:
        return geometry
    if not off <= np.sin(np.deg2rad(ROUNDED_DEGREES)):
        raise UserError(
            "the axes are not at right angles (sheared direction matrix)",
            file=file,
            expected=f"at most {ROUNDED_DEGREES:g} degrees off, which rounding explains",
            found=f"{np.rad2deg(np.arcsin(min(1.0, off))):.2g} degrees: {np.round(matrix, 4).tolist()}",
            remedy="Resample the image on a straight grid",
        )
    left, _, right = np.linalg.svd(matrix)
    direction = tuple(float(value) for value in (left @ right).ravel())
    _tell(file, tuple(matrix.ravel().tolist()), direction)
    return Geometry(geometry.shape, geometry.spacing, geometry.origin, direction)


def sform_geometry(header: NiftiHeader | None) -> Geometry | None:
    """The grid of an sform that ITK refuses for its angles, in LPS and the axis order of the file; None without one."""
    sform = None if header is None else header.affines[1]
    if header is None or sform is None or len(header.shape) != 3 or not header.in_mm:
        return None
    columns = _LPS @ sform[:, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not (np.isfinite(sform).all() and (lengths > 0).all()):
        return None
    x, y, z = lengths.tolist()
    origin = _LPS @ sform[:, 3]
    return Geometry(
        shape=(header.shape[0], header.shape[1], header.shape[2]),
        spacing=(z, y, x),
        origin=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=tuple((columns / lengths).ravel().tolist()),
    )


@cache  # once for each file, however often its grid is asked for
def _tell(file: Path, found: tuple[float, ...], taken: tuple[float, ...]) -> None:
    shown = (np.round(np.reshape(values, (3, 3)), 6).tolist() for values in (found, taken))
    LOGGER.warning("%s: the axes are not quite at right angles: %s; taken as %s", file, *shown)
