"""Values that neither data nor machine decide: the user's, detectron2's where they are asked for, else our own."""

from __future__ import annotations

from typing import Any

from nndet_psma.planners.ledger import Ledger
from nndet_psma.systems.psma25d.options import SliceOptions

DETECTRON2: dict[str, tuple[Any, str]] = {
    "positive_fraction": (1.0, "DATALOADER.FILTER_EMPTY_ANNOTATIONS True: only slices with a lesion"),
    "hard_negative_fraction": (0.0, "slices without a lesion are never drawn"),
    "positive_draw": ("slices", "DATALOADER.SAMPLER_TRAIN TrainingSampler: every slice alike"),
    "nms_iou": (0.5, "MODEL.ROI_HEADS.NMS_THRESH_TEST"),
    "min_score": (0.05, "MODEL.ROI_HEADS.SCORE_THRESH_TEST"),
    "detections_per_slice": (100, "TEST.DETECTIONS_PER_IMAGE"),
    "frozen_layers": (2, "MODEL.BACKBONE.FREEZE_AT: stem and first block"),
    "box_loss": ("l1", "MODEL.RPN and ROI_BOX_HEAD.SMOOTH_L1_BETA 0: L1"),
    "clip_norm": (0.0, "SOLVER.CLIP_GRADIENTS.ENABLED False"),
    "norm_decay": (False, "SOLVER.WEIGHT_DECAY_NORM 0"),
    "warmup": (1000, "SOLVER.WARMUP_ITERS, linear from SOLVER.WARMUP_FACTOR 0.001"),
    "canvas": ("grow", "transforms.RandomRotation(expand=True): the rotated slice is seen whole"),
}
"""Value and key of the configuration of detectron2, version 0.6."""

RULE = "detectron2 default"


def found(options: SliceOptions, name: str, own: Any) -> tuple[Any, str, str]:
    """Value of option ``name``, rule and evidence; both "" where it is our ``own``, which its caller explains."""
    given = getattr(options, name)
    if given is not None:
        return given, f"plan_cfg.{name}", "the user's choice"
    if options.defaults == "detectron2":
        value, source = DETECTRON2[name]
        return value, RULE, f"{source}; Xu et al. 2023 do not say"
    return own, "", ""


def settled(ledger: Ledger, options: SliceOptions, name: str, own: Any, key: str = "") -> Any:
    """The same value, noted under ``key`` of the plan (``name`` if empty) unless it is our own."""
    value, rule, evidence = found(options, name, own)
    if rule:
        ledger.note(key or name, rule, evidence)
    return value


def is_own(options: SliceOptions, name: str) -> bool:
    """Whether our own rule decides."""
    return options.defaults == "own" and getattr(options, name) is None
