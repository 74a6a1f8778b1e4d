"""The part of a stored case that a stage looks at: slices, in-plane box, mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.plan import Plan, Stage
from nndet_psma.core.errors import UserError
from nndet_psma.preprocess.grid import mask_box
from nndet_psma.preprocess.prepare import PreparedCase


@dataclass(frozen=True)
class Region:
    """What a stage sees of a case, in store voxels.

    Attributes:
        slices: axial slice indices it covers, ascending.
        box: in-plane box ``(y0, x0, y1, x1)``.
        mask: (z, y, x) voxels kept, None keeps all.
    """

    slices: NDArray[np.int64]
    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_] | None

    @property
    def centre(self) -> tuple[float, float]:
        """Centre (y, x) of the in-plane box."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


def stage_region(case: PreparedCase, plan: Plan, stage: Stage) -> Region:
    """Whole slices for "body"; for "search" the CTV grown by the planned margin, or whole slices without CTV.

    Raises:
        UserError: the CTV lies outside the body.
    """
    depth, height, width = case.geometry.shape
    mask = case.search_mask(plan.margin_mm) if stage.region == "search" else None
    if mask is None:
        return Region(np.arange(depth), (0.0, 0.0, float(height), float(width)), None)
    found = mask_box(mask)
    if found is None:
        raise UserError(
            f"the CTV of case {case.case_id} lies outside the body",
            remedy="Check that CTV and CT belong together",
        )
    _, y0, x0, _, y1, x1 = (float(v) for v in found)
    return Region(np.flatnonzero(mask.any(axis=(1, 2))), (y0, x0, y1, x1), mask)
