"""In-plane sizes of what the detector sees, in voxels of the planned grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.fingerprint import Fingerprint


@dataclass(frozen=True)
class PlaneSizes:
    """Sizes in planned voxels.

    Attributes:
        search: (height, width) of every case's search region (grown CTV, else body), ``[N, 2]``.
        body: the same of the body with its margin.
        heights: of every lesion's box in every slice it touches, ``[M]``.
        widths: the same.
    """

    search: NDArray[np.float64]
    body: NDArray[np.float64]
    heights: NDArray[np.float64]
    widths: NDArray[np.float64]

    @property
    def largest_search(self) -> tuple[float, float]:
        """Height and width that hold every search region."""
        return float(self.search[:, 0].max()), float(self.search[:, 1].max())

    @property
    def largest_body(self) -> tuple[float, float]:
        """Height and width that hold every body."""
        return float(self.body[:, 0].max()), float(self.body[:, 1].max())

    @property
    def sides(self) -> NDArray[np.float64]:
        """Square roots of the slice boxes' areas."""
        return np.sqrt(self.heights * self.widths)


def plane_sizes(
    fingerprint: Fingerprint, spacing: tuple[float, float, float], margin_mm: float, body_margin_mm: float
) -> PlaneSizes:
    """Sizes of all cases and lesions on a grid of ``spacing`` (mm, z y x).

    Margins are mm. A region cannot grow beyond the image it lies in.
    """
    search, body = [], []
    for case in fingerprint.cases:
        body.append(_extent(case.body_box, case.shape, case.spacing, spacing, body_margin_mm))
        box = case.ctv_box
        search.append(body[-1] if box is None else _extent(box, case.shape, case.spacing, spacing, margin_mm))
    slices = np.array([size for lesion in fingerprint.lesions for size in lesion.slice_sizes_mm]).reshape(
        -1, 2
    )
    return PlaneSizes(np.array(search), np.array(body), slices[:, 0] / spacing[1], slices[:, 1] / spacing[2])


def _extent(
    box: Sequence[float],
    shape: Sequence[int],
    own: Sequence[float],
    planned: Sequence[float],
    grow_mm: float,
) -> tuple[float, float]:
    height, width = (
        (min(box[3 + axis] + grow_mm / own[axis], shape[axis]) - max(box[axis] - grow_mm / own[axis], 0.0))
        * own[axis]
        / planned[axis]
        for axis in (1, 2)
    )
    return height, width
