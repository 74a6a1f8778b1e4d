"""Reject boxes too far out in the margin round the clinical target volume."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.detections import Detections


def zone_filter(detections: Detections, zone_mm: float | None) -> NDArray[np.bool_]:
    """Which boxes ``[N]`` to keep: centre at most ``zone_mm`` outside the original CTV (Xu 2023, tau4).

    The search region is the CTV grown by a margin, and false positives gather at its outer border (Xu 2023,
    "Prediction post-processing"). The paper counts pixels; here millimetres, so that one value fits every spacing.

    Args:
        detections: with column ``zone_mm``, distance of the box centre outside the CTV in mm, 0 inside.
        zone_mm: largest distance kept, in mm; ``None`` keeps everything.

    Raises:
        ValueError: the column is missing.
    """
    if zone_mm is None or len(detections) == 0:
        return np.ones(len(detections), dtype=bool)
    if "zone_mm" not in detections.columns:
        raise ValueError("the zone filter needs the column 'zone_mm'")
    return detections.columns["zone_mm"] <= zone_mm
