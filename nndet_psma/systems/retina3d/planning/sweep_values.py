"""Post-processing of 3D boxes: its steps, starting values and the values the sweep tries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from nndet_psma.artifacts.fingerprint import Histogram
from nndet_psma.planners.sweep_values import postproc_defaults, postproc_grid

STEPS = (
    "NMS",
    "WeightedBoxClustering",
    "ScoreThreshold",
    "ZoneFilter",
    "HUFilter",
    "SizeFilter",
    "WindowBagging",
    "BoxSlicing",
)
"""Suppression within each fold (nnDetection's ``model_iou``), then clustering (its ``ensemble_iou``)."""
# nnDetection's sweep: six overlaps from 0, seven scores, seven sides in voxels. Overlap 0 is any overlap at all.
IOUS = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5)
_SCORES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
_SIDES = (2, 3, 4, 5, 6, 7)  # its seventh, 0.01, is "off"


def patch_defaults(margin_mm: float | None) -> dict[str, Any]:
    """Settings before any tuning: nnDetection's overlaps 0.1 and 0.5, filters off. ``margin_mm``: None without CTV."""
    return {
        **postproc_defaults(margin_mm),
        "nms_iou": 0.1,
        "fold_iou": 0.5,
        "min_extent_mm": None,
        "steps": list(STEPS),
    }


def patch_grid(
    lesion_hu: Histogram,
    margin_mm: float | None,
    finest_mm: float,
    short_sides_mm: Sequence[float],
    grids: Literal["data", "paper"],
) -> dict[str, list[Any]]:
    """Values to try: nnDetection's for suppression, clustering and small boxes, those of slices for zone and HU.

    ``grids`` "data" tries every score that occurs (after a short training all may lie below 0.1), and no limit above
    the shortest side of the smallest lesions (5 %), which would be lost; "paper" nnDetection's seven scores and all
    of its limits.

    Args:
        lesion_hu: HU of all lesion voxels, empty without CT.
        margin_mm: growth of the CTV, None without.
        finest_mm: finest spacing of the grid; nnDetection counts voxels.
        short_sides_mm: shortest side of every lesion's box.
        grids: as in ``plan_cfg``.
    """
    shared = postproc_grid(lesion_hu, margin_mm, voters=1)
    sizes = [round(side * finest_mm, 3) for side in _SIDES]
    if grids == "data":
        smallest = float(np.quantile(short_sides_mm, 0.05))
        sizes = [size for size in sizes if size <= smallest]
    scores = {"score_threshold": list(_SCORES)} if grids == "paper" else {}
    return {
        "nms_iou": list(IOUS),
        "fold_iou": list(IOUS),
        "min_extent_mm": [None, *sizes],
        **scores,
        **shared,
        "vote_iou": [shared["vote_iou"][-1]],  # a single voter has nobody to agree with
    }
