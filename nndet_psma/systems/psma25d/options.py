"""What a user may tell the planner of ``psma25d`` beside what the planners of all detectors are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nndet_psma.planners.detector_options import DetectorOptions


@dataclass(frozen=True, kw_only=True)
class SliceOptions(DetectorOptions):
    """Keys of ``plan_cfg``; None lets ``defaults``, the data or the target machine decide.

    Attributes:
        defaults: where Xu et al. 2023 say nothing: our "own" rules, or the values of "detectron2", which they used.
        positive_fraction: share of a batch that holds a lesion; 1 trains on lesion slices only.
        hard_negative_fraction: share of the other slices that the whole-slice stage mistook; 0 is off.
        positive_draw: draws every "slices", "lesions" or "cases" with a lesion equally often.
        nms_iou: overlap above which the weaker box of a detector is dropped.
        min_score: boxes of a detector below are dropped.
        detections_per_slice: boxes that a detector keeps of a slice.
        frozen_layers: parts of the backbone that keep their weights: 1 the stem, 2 the first ResNet layer, too.
        box_loss: of box coordinates.
        clip_norm: limit of the gradient's norm; 0 does not clip.
        norm_decay: whether weight decay acts on normalisation layers.
        warmup: iterations of linear warm-up of every stage at the paper's batch, stretched as the iterations are.
        canvas: where rotation would turn the search region out of view: "grow" the training image, "bound" the angle,
            or the first if the machine has room for it ("auto").
    """

    defaults: Literal["own", "detectron2"] = "own"
    positive_fraction: float | None = None
    hard_negative_fraction: float | None = None
    positive_draw: Literal["slices", "lesions", "cases"] | None = None
    nms_iou: float | None = None
    min_score: float | None = None
    detections_per_slice: int | None = None
    frozen_layers: int | None = None
    box_loss: Literal["smooth_l1", "l1"] | None = None
    clip_norm: float | None = None
    norm_decay: bool | None = None
    warmup: int | None = None
    canvas: Literal["auto", "grow", "bound"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(lambda value: 0 < value <= 1, "above 0 and at most 1", "positive_fraction", "nms_iou")
        self.require(lambda value: 0 <= value <= 1, "between 0 and 1", "hard_negative_fraction")
        self.require(lambda value: 0 <= value < 1, "at least 0 and below 1", "min_score")
        self.require(lambda value: value >= 1, "at least 1", "detections_per_slice")
        self.require(lambda value: 0 <= value <= 5, "between 0 and 5", "frozen_layers")
        self.require(lambda value: value >= 0, "not negative", "clip_norm", "warmup")
