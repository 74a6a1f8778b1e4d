"""The part of a stored case that a stage looks at: slices, in-plane box, mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.detector_plan import DetectorPlan, Stage
from nndet_psma.core.errors import UserError
from nndet_psma.preprocess.distance import UNIT_MM
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.warp import PixelBox


@dataclass(frozen=True)
class SearchMask:
    """CTV grown by a margin, computed where it is asked for: no volume of it is kept in memory.

    Attributes:
        distance: (z, y, x) of ``PreparedCase.ctv_distance``.
        limit: largest distance that belongs to it, in the same unit.
    """

    distance: NDArray[np.int16]
    limit: int

    def __getitem__(self, index: Any) -> Any:
        """Whether the voxels at a numpy ``index`` belong to it, bool."""
        return self.distance[index] <= self.limit


@dataclass(frozen=True)
class Region:
    """What a stage sees of a case, in store voxels.

    Attributes:
        slices: axial slice indices it covers, ascending.
        box: in-plane box ``(y0, x0, y1, x1)``.
        mask: voxels kept, by index as a (z, y, x) array; None keeps all.
    """

    slices: NDArray[np.int64]
    box: tuple[float, float, float, float]
    mask: SearchMask | None

    @property
    def centre(self) -> tuple[float, float]:
        """Centre (y, x) of the in-plane box."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    def seen(self, z: int) -> tuple[PixelBox, NDArray[np.bool_] | None]:
        """Tight box of what is kept of slice ``z``, and which of its pixels are (None: all).

        The box is empty for a slice that the region does not cover.
        """
        y0, x0, y1, x1 = (int(v) for v in self.box)
        if self.mask is None:
            return (y0, x0, y1, x1), None
        kept = self.mask[z, y0:y1, x0:x1]
        rows, columns = np.flatnonzero(kept.any(axis=1)), np.flatnonzero(kept.any(axis=0))
        if len(rows) == 0:
            return (y0, x0, y0, x0), kept[:0, :0]
        top, bottom, left, right = (int(v) for v in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
        return (y0 + top, x0 + left, y0 + bottom, x0 + right), kept[top:bottom, left:right]


def stage_region(case: PreparedCase, plan: DetectorPlan, stage: Stage) -> Region:
    """Whole slices for "body"; for "search" the CTV grown by the planned margin, or whole slices without CTV.

    Raises:
        UserError: the CTV lies outside the body.
    """
    depth, height, width = case.geometry.shape
    if stage.region != "search" or case.ctv_distance is None:
        return Region(np.arange(depth), (0.0, 0.0, float(height), float(width)), None)
    mask = SearchMask(case.ctv_distance, round(plan.margin_mm / UNIT_MM))
    slices, rows, columns = [], np.zeros(height, dtype=bool), np.zeros(width, dtype=bool)
    for z in range(depth):
        kept = mask[z]
        if kept.any():
            slices.append(z)
            rows |= kept.any(axis=1)
            columns |= kept.any(axis=0)
    if not slices:
        raise UserError(
            f"the CTV of case {case.case_id} lies outside the body",
            remedy="Check that CTV and CT belong together",
        )
    (y0, y1), (x0, x1) = (np.flatnonzero(hits)[[0, -1]].astype(float).tolist() for hits in (rows, columns))
    return Region(np.array(slices, dtype=np.int64), (y0, x0, y1 + 1, x1 + 1), mask)
