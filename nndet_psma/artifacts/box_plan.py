"""Base of the plans whose results are boxes: search region, filters and the values that their sweep tries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from nndet_psma.artifacts.plan import Plan


@dataclass(frozen=True, kw_only=True)
class BoxPlan(Plan):
    """A plan of a system that finds lesions.

    Attributes:
        box_dim: of the boxes that are found: 2 for boxes on slices, 3 for boxes in 3D.
        margin_mm: growth of the CTV that is searched; without CTV of what is cut out.
        postproc_defaults: fields of ``postproc.steps.settings.PostprocSettings`` before the sweep.
        postproc_grid: the values that the sweep tries for each.
    """

    box_dim: ClassVar[Literal[2, 3]] = 3

    margin_mm: float
    postproc_defaults: dict[str, Any]
    postproc_grid: dict[str, list[Any]]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.margin_mm < 0:
            raise ValueError(f"margin_mm must not be negative, found {self.margin_mm}")
        zones = [self.postproc_defaults.get("zone_mm"), *self.postproc_grid.get("zone_mm", [])]
        beyond = [zone for zone in zones if zone is not None and zone > self.margin_mm]
        if self.ctv_modality is not None and beyond:
            raise ValueError(
                f"zone_mm {max(beyond):g} lies beyond margin_mm {self.margin_mm:g}: nothing is seen there"
            )
