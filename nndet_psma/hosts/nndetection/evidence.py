"""What the zone filter and the HU filter need to know of a case, kept small beside nnDetection's predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.box import Boxes, box_centres
from nndet_psma.boxes.detections import Detections
from nndet_psma.hosts.nndetection.channels import hu_and_zone
from nndet_psma.postproc.steps.hu_filter import QUANTILES, hu_filter
from nndet_psma.postproc.steps.zone_filter import zone_filter
from nndet_psma.preprocess.distance import BEYOND, UNIT_MM
from nndet_psma.trainers.networks.box_evidence import volume_quantiles


@dataclass(frozen=True)
class CaseEvidence:
    """Volumes (z, y, x) of the preprocessed case.

    Attributes:
        hu: int16 HU, None without CT.
        zone: int16 hundredths of mm outside the CTV, 0 inside and without CTV.
    """

    hu: NDArray[np.int16] | None
    zone: NDArray[np.int16]

    @classmethod
    def of_case(cls, data: NDArray[np.float32]) -> CaseEvidence:
        """From all channels ``[C + 2, z, y, x]``."""
        hu, zone = hu_and_zone(data)
        known = not bool(np.isnan(hu[0, 0, 0]))
        hundredths = np.clip(np.rint(zone / UNIT_MM), 0, BEYOND).astype(np.int16)
        limits = np.iinfo(np.int16)
        kept = np.clip(np.rint(hu), limits.min, limits.max).astype(np.int16) if known else None
        return cls(kept, hundredths)

    def to_state(self) -> dict[str, Any]:
        """Plain content for nnDetection's state file."""
        return {"hu": self.hu, "zone": self.zone}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> CaseEvidence:
        """Inverse of :meth:`to_state`."""
        return cls(state["hu"], state["zone"])

    def beside(self, detections: Detections) -> Detections:
        """3D boxes (tight, ours) with the columns ``zone_mm`` and ``hu_quantiles``; positions outside are clipped."""
        shape = np.array(self.zone.shape)
        lower = np.clip(detections.boxes[:, :3], 0, shape - 1)
        upper = np.clip(detections.boxes[:, 3:], lower + 1e-3, shape)
        inside: Boxes = np.concatenate([lower, upper], axis=1)
        centres = np.floor(box_centres(inside)).astype(np.int64)
        zone = self.zone[tuple(centres.T)] * UNIT_MM
        quantiles = np.full((len(detections), len(QUANTILES)), np.nan, dtype=np.float32)
        if self.hu is not None and len(detections):
            quantiles = volume_quantiles(self.hu, inside)
        return detections.with_columns(zone_mm=zone, hu_quantiles=quantiles)


@dataclass(frozen=True)
class FilterLimits:
    """The scale on which thresholds are swept: nnDetection's sweep sees neither plan nor data set.

    Attributes:
        margin_mm: growth of the CTV that was searched.
        hu_thresholds: candidates of the plan, ascending; a sweep names one by its place.
    """

    margin_mm: float
    hu_thresholds: tuple[float, ...]

    @classmethod
    def of_grid(cls, margin_mm: float, grid: Mapping[str, list[Any]]) -> FilterLimits:
        """From our plan's margin and ``postproc_grid``."""
        found = [float(value) for value in grid.get("hu_threshold", []) if value is not None]
        return cls(margin_mm, tuple(sorted(found)))

    def keep(
        self,
        detections: Detections,
        evidence: CaseEvidence,
        zone_share: float | None,
        hu_rule: tuple[int, float] | None,
    ) -> NDArray[np.bool_]:
        """Which 3D boxes ``[N]`` to keep.

        Args:
            detections: tight boxes, ours.
            evidence: of the case.
            zone_share: tau4 as a share of the margin; None: off.
            hu_rule: place of tau5 among ``hu_thresholds`` and tau6; None, or a place that does not exist: off.
        """
        if zone_share is None and hu_rule is None:
            return np.ones(len(detections), dtype=bool)
        known = evidence.beside(detections)
        kept = zone_filter(known, None if zone_share is None else zone_share * self.margin_mm)
        if hu_rule is not None and hu_rule[0] < len(self.hu_thresholds):
            kept &= hu_filter(known, self.hu_thresholds[hu_rule[0]], hu_rule[1])
        return kept
