"""The smallest detector of a plan, for tests."""

from __future__ import annotations

from typing import Any

from nndet_psma.systems.psma25d.plan import Detector


def small_detector(**changes: Any) -> Detector:
    values: dict[str, Any] = {
        "backbone": "resnet18",
        "weights": "none",
        "norm": "batch",
        "levels": [1, 2],
        "fpn_channels": 16,
        "head_channels": 32,
        "scale": 1.0,
        "body_scale": 1.0,
        "input_size": (48, 64),
        "body_input_size": (48, 64),
        "anchor_sizes": [[5.0, 8.0], [12.0, 16.0]],
        "aspect_ratios": [0.8, 1.25],
        "input_mean": 0.0,
        "input_std": 1.0,
        "rpn_samples": 16,
        "roi_samples": 8,
        "proposals_train": 20,
        "proposals_test": 20,
        "detections_per_slice": 5,
        "min_score": 0.02,
        "nms_iou": 0.3,
        "mask_branch": False,
    }
    return Detector(**{**values, **changes})
