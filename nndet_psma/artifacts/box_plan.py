"""Base of the plans whose results are boxes: search region, filters and the values that their sweep tries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from nndet_psma.artifacts.plan import Plan
from nndet_psma.core.schema import Within

MOST_MM = 3000
"""Longer than anybody."""


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

    margin_mm: Annotated[float, Within(0, MOST_MM)]
    postproc_defaults: dict[str, Any]
    postproc_grid: dict[str, list[Any]]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.margin_mm < 0:
            raise ValueError(f"margin_mm must not be negative, found {self.margin_mm}")
        for zone in (self.postproc_defaults.get("zone_mm"), *self.postproc_grid.get("zone_mm", [])):
            self.check_zone(zone)

    def check_zone(self, zone_mm: float | None) -> None:
        """ValueError where boxes would be accepted beyond what is searched."""
        if zone_mm is None or self.ctv_modality is None:
            return
        if isinstance(zone_mm, bool) or not isinstance(zone_mm, int | float):
            raise ValueError(f"zone_mm must be a number, found {zone_mm!r:.100}")
        if zone_mm > self.margin_mm:
            raise ValueError(
                f"zone_mm {zone_mm:g} lies beyond margin_mm {self.margin_mm:g}: nothing is seen there"
            )
