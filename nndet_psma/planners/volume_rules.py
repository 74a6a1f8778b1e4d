"""Sizes of regions and lesions on a planned 3D grid, and that grid's spacing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.fingerprint import CaseFingerprint, Fingerprint

Floats = NDArray[np.float64]
Triple = tuple[float, float, float]

ANISOTROPIC = 3.0
"""An axis is coarse from this many times the spacing of the finest axis on (nnU-Net's threshold)."""
CONTEXT = 1.5
"""A patch is at least so many times as long as the larger lesions."""
_LEAST_VOXELS = 4


@dataclass(frozen=True)
class VolumeSizes:
    """Sizes in planned voxels, columns (z, y, x).

    Attributes:
        regions: of every case's search region (grown CTV, else the body), ``[N, 3]``.
        lesions: of every lesion's box, ``[M, 3]``.
    """

    regions: Floats
    lesions: Floats

    @property
    def median_region(self) -> Triple:
        """Median of every axis on its own."""
        return _triple(np.median(self.regions, axis=0))

    def lesion_quantile(self, quantile: float) -> Triple:
        """Extent along each axis below which the share ``quantile`` of the lesions lies."""
        return _triple(np.quantile(self.lesions, quantile, axis=0))


def volume_spacing(spacings: Floats, shapes: Floats) -> tuple[Triple, str]:
    """Spacing (z, y, x) mm of the grid for a 3D network, and the rule that gave it.

    The median of every axis, y and x with one common value. Where the median is anisotropic (one axis three times as
    coarse as the finest, with a third of the others' voxels or fewer), the coarse axis gets the 10 % quantile of its
    spacings instead, but no finer than the next finer axis: convolutions along an axis gain from resolution that part
    of the cases have.

    Source: the target spacing of nnU-Net and nnDetection.

    Args:
        spacings: of the cases, ``[N, 3]`` mm.
        shapes: of the cases, ``[N, 3]`` voxels.
    """
    z, y, x = np.median(spacings, axis=0)
    plane = float(y) if np.isclose(y, x, rtol=1e-6) else float(np.sqrt(y * x))
    rows, columns = np.median(shapes[:, 1:], axis=0)
    slices = float(np.median(shapes[:, 0]))
    if z >= ANISOTROPIC * plane and slices * ANISOTROPIC <= min(rows, columns):
        finer = max(plane, float(np.quantile(spacings[:, 0], 0.1)))
        if finer < z:
            rule = f"volume.volume_spacing: median; z is {z / plane:.1f} times as coarse: 10 % quantile"
            return _rounded(finer, plane), rule
    return _rounded(float(z), plane), "volume.volume_spacing: median"


def affordable_spacing(spacing: Triple, lesions_mm: Floats, longest_side: int) -> Triple:
    """``spacing`` (mm), coarsened along axes where the larger lesions would not fit into the longest affordable patch.

    Half as much again as the 95 % quantile of the lesions' extents then takes ``longest_side`` voxels. The smaller
    lesions (5 % quantile) keep four voxels wherever they had them; y and x keep one common value.

    Source: our choice, where time is short; nnU-Net coarsens for its low-resolution stage, so that a patch sees more.

    Args:
        spacing: planned so far.
        lesions_mm: extents of all lesions, ``[M, 3]``.
        longest_side: of a patch, voxels.
    """
    small, large = np.quantile(lesions_mm, [0.05, 0.95], axis=0)
    wanted = np.minimum(CONTEXT * large / longest_side, small / _LEAST_VOXELS)
    wanted[1:] = min(max(wanted[1:]), small[1:].min() / _LEAST_VOXELS)
    z, y, _ = np.maximum(spacing, wanted)
    return _rounded(float(z), float(y))


def volume_sizes(
    fingerprint: Fingerprint, spacing: Triple, margin_mm: float, body_margin_mm: float
) -> VolumeSizes:
    """Sizes of all cases and lesions on a grid of ``spacing`` (mm, z y x).

    Margins are mm. The CTV grows in all directions; the body only in-plane, since every axial slice is kept. A region
    cannot grow beyond the image it lies in.
    """
    regions = [_region(case, margin_mm, body_margin_mm) / np.array(spacing) for case in fingerprint.cases]
    lesions = [np.array(lesion.size_mm) / np.array(spacing) for lesion in fingerprint.lesions]
    return VolumeSizes(np.array(regions), np.array(lesions).reshape(-1, 3))


def _region(case: CaseFingerprint, margin_mm: float, body_margin_mm: float) -> Floats:
    """Extents of a case's search region in mm."""
    own, shape = np.array(case.spacing), np.array(case.shape, dtype=np.float64)
    box = np.array(case.body_box if case.ctv_box is None else case.ctv_box)
    grow = (body_margin_mm if case.ctv_box is None else margin_mm) / own
    lower, upper = np.maximum(box[:3] - grow, 0), np.minimum(box[3:] + grow, shape)
    if case.ctv_box is None:
        lower[0], upper[0] = 0, shape[0]
    extents: Floats = (upper - lower) * own
    return extents


def _rounded(z: float, plane: float) -> Triple:
    return round(z, 4), round(plane, 4), round(plane, 4)


def _triple(values: Floats) -> Triple:
    return float(values[0]), float(values[1]), float(values[2])
