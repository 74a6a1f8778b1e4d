"""Reject boxes on contrast-filled vessels and bowel by their HU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.detections import Detections

QUANTILES = tuple(step / 10 for step in range(1, 11))
"""Quantiles of the column ``hu_quantiles``, in its order (Xu 2023, table 3, tau6)."""


def hu_filter(detections: Detections, threshold_hu: float | None, quantile: float) -> NDArray[np.bool_]:
    """Which boxes ``[N]`` to keep: HU at ``quantile`` of the box not above ``threshold_hu`` (Xu 2023, tau5, tau6).

    Vessels and bowel are brighter than nodes on contrast-enhanced CT. A *higher* quantile filters more: the
    brightest voxel (quantile 1) passes the threshold sooner than the median. A box whose HU is unknown (NaN) is kept.

    Args:
        detections: with column ``hu_quantiles``, ``[N, 10]``, HU at :data:`QUANTILES` of the voxels in the box.
        threshold_hu: tau5 in HU; ``None`` keeps everything.
        quantile: tau6, one of :data:`QUANTILES`.

    Raises:
        ValueError: the quantile is not in the table, or the column is missing.
    """
    column = quantile_index(quantile)
    if threshold_hu is None or len(detections) == 0:
        return np.ones(len(detections), dtype=bool)
    if "hu_quantiles" not in detections.columns:
        raise ValueError("the HU filter needs the column 'hu_quantiles'")
    return ~(detections.columns["hu_quantiles"][:, column] > threshold_hu)


def quantile_index(quantile: float) -> int:
    """Position of ``quantile`` in :data:`QUANTILES`; forgives rounding, as 0.1 steps are not exact in binary.

    Raises:
        ValueError: not one of them.
    """
    distance = np.abs(np.array(QUANTILES) - quantile)
    nearest = int(np.argmin(distance))
    if not distance[nearest] < 1e-6:
        raise ValueError(f"hu_quantile must be one of {', '.join(map(str, QUANTILES))}, got {quantile}")
    return nearest
