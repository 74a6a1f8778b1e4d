"""Starting values of the post-processing and the values the sweep tries (Xu et al. 2023, table 3)."""

from __future__ import annotations

from typing import Any

import numpy as np

from nndet_psma.artifacts.fingerprint import Histogram

_STEPS = 10
_PAPER_PIXEL_MM = 0.648  # 10 pixels are 6.48 mm there
_NMS_IOU = 0.3  # small nodes: a box displaced by a third of its side has an IoU of 0.5 and is the same node


def postproc_defaults(margin_mm: float | None) -> dict[str, Any]:
    """Settings before any tuning: filters off, one vote is enough. ``margin_mm`` is None without CTV.

    Thresholds are tuned on single folds and used on all folds together. A fold that misses a box therefore does not
    lower its score (docs/postprocessing.md has the measurement).
    """
    return {
        "fold_iou": 0.5,
        "fold_score": "present",
        "zone_mm": margin_mm,
        "hu_threshold": None,
        "hu_quantile": 0.5,
        "vote_iou": 0.3,
        "min_votes": 1,
        "score_threshold": 0.0,
        "nms_iou": _NMS_IOU,
        "link_iou": 0.1,
        "link_gap": 1,
        "hit_iou": 0.1,
    }


def postproc_grid(lesion_hu: Histogram, margin_mm: float | None, voters: int) -> dict[str, list[Any]]:
    """Values to try for tau4 (mm), tau5 (HU), tau6, tau1 and tau2; filters that cannot apply stay off.

    tau4: ten equal steps up to the margin (1..10 pixels of a 10-pixel margin in the paper). tau5: five values between
    the 75 % and 99 % quantiles of the lesions' HU, so that they bracket the lesions of this data set; 80..160 in the
    paper. tau6 as in the paper. tau1 from 0.1 up to the overlap at which boxes count as one in suppression: voters that
    had to agree more closely would leave several boxes on one node, which slice precision rewards. tau3 as in the
    paper: scored, not chosen.
    """
    thresholds: list[float] = []
    if lesion_hu.total:
        low, high = lesion_hu.quantile(0.75), lesion_hu.quantile(0.99)
        thresholds = sorted({float(5 * round(v / 5)) for v in np.linspace(low, high, 5)})
    zones = [] if margin_mm is None else [round(margin_mm * i / _STEPS, 3) for i in range(1, _STEPS + 1)]
    return _grid(zones, thresholds, round(_NMS_IOU * _STEPS), voters)


def paper_grid(has_ct: bool, margin_mm: float | None, voters: int) -> dict[str, list[Any]]:
    """Table 3 of Xu et al. 2023 as it stands: tau4 1..10 pixels of 0.648 mm, tau5 80..160 HU, tau1 and tau6 0.1..1.

    Values beyond the margin are left out: nothing is seen there. tau2 ends at the number of voters.
    """
    zones: list[float] = []
    if margin_mm is not None:
        pixels = [round(i * _PAPER_PIXEL_MM, 3) for i in range(1, _STEPS + 1)]
        zones = [zone for zone in pixels if zone <= margin_mm]
    thresholds = [80.0, 100.0, 120.0, 140.0, 160.0] if has_ct else []
    return _grid(zones, thresholds, _STEPS, voters)


def _grid(zones: list[float], thresholds: list[float], vote_steps: int, voters: int) -> dict[str, list[Any]]:
    return {
        "zone_mm": [None, *zones],
        "hu_threshold": [None, *thresholds],
        "hu_quantile": [round(i / _STEPS, 1) for i in range(1, _STEPS + 1)],
        "vote_iou": [round(i / _STEPS, 1) for i in range(1, vote_steps + 1)],
        "min_votes": list(range(1, voters + 1)),
        "hit_iou": [round(i / _STEPS, 1) for i in range(1, _STEPS + 1)],
    }
