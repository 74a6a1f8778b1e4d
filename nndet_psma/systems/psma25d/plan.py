"""Plan of ``psma25d``: a two-stage detector on slices with their neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from nndet_psma.artifacts.channels import Intensity
from nndet_psma.artifacts.detector_plan import DetectorPlan
from nndet_psma.core.schema import AtMost, Id, Within, added

# four times what torchvision's largest detectors have, or more
Channels = Annotated[int, Within(1, 8192)]
Side = Annotated[int, Within(1, 16_384)]
Scale = Annotated[float, Within(0.001, 100)]
Boxes = Annotated[int, Within(1, 100_000)]


@dataclass(frozen=True)
class Detector:
    """Network and its sampling.

    Attributes:
        backbone: torchvision ResNet name.
        weights: "none", "imagenet" or a path.
        norm: "batch" trains statistics, "frozen" keeps those of the weights, "group" is GroupNorm.
        levels: ResNet layers (1..4) that feed the FPN; strides 4, 8, 16, 32.
        fpn_channels: channels of the pyramid.
        head_channels: width of the box head.
        scale: detector pixels per store voxel, in-plane.
        body_scale: the same for stages on whole slices.
        input_size: largest input (height, width) in detector pixels of a search-region stage.
        body_input_size: the same for whole-slice stages.
        anchor_sizes: per level, in detector pixels.
        aspect_ratios: height / width.
        input_mean: subtracted from the [0, 1] channels.
        input_std: then divided by.
        rpn_samples: anchors sampled per image for the RPN loss.
        roi_samples: proposals sampled per image for the box loss.
        proposals_train: proposals kept after NMS in training.
        proposals_test: the same when predicting.
        detections_per_slice: boxes kept per slice.
        min_score: boxes below are never kept.
        nms_iou: NMS of the box head.
        mask_branch: train and run the mask head (off in the paper).
        frozen_layers: parts of the backbone that keep their weights: 1 the stem, 2 the first layer, too, ...
        box_loss: of box coordinates, in both stages of the detector.
        positive_draw: how slices with a lesion are drawn: every slice alike; or every lesion, or every case and in it
            every lesion alike, then every slice of the lesion.
    """

    backbone: Id
    weights: str
    norm: Literal["batch", "frozen", "group"]
    levels: list[int]
    fpn_channels: Channels
    head_channels: Channels
    scale: Scale
    body_scale: Scale
    input_size: tuple[Side, Side]
    body_input_size: tuple[Side, Side]
    anchor_sizes: list[Annotated[list[Annotated[float, Within(0, 1e4)]], AtMost(100)]]
    aspect_ratios: Annotated[list[Annotated[float, Within(0, 100)]], AtMost(100)]
    input_mean: Intensity
    input_std: Intensity
    rpn_samples: Boxes
    roi_samples: Boxes
    proposals_train: Boxes
    proposals_test: Boxes
    detections_per_slice: Boxes
    min_score: float
    nms_iou: float
    mask_branch: bool
    frozen_layers: Annotated[int, Within(0, 5)] = added(0)
    box_loss: Literal["smooth_l1", "l1"] = added("smooth_l1")
    positive_draw: Literal["slices", "lesions", "cases"] = added("slices")

    def __post_init__(self) -> None:
        if len(self.levels) != len(self.anchor_sizes):
            raise ValueError(f"{len(self.levels)} levels but anchor sizes for {len(self.anchor_sizes)}")
        if len({len(sizes) for sizes in self.anchor_sizes}) > 1:
            raise ValueError("every level needs the same number of anchor sizes (the RPN head is shared)")
        if not self.levels or self.levels != sorted(set(self.levels)) or not set(self.levels) <= {1, 2, 3, 4}:
            raise ValueError(f"levels ascend among the ResNet layers 1..4, found {self.levels}")
        if (
            not self.aspect_ratios
            or min([*self.aspect_ratios, *(s for sizes in self.anchor_sizes for s in sizes)]) <= 0
        ):
            raise ValueError("anchor sizes and aspect ratios must be positive")
        if not 0 <= self.frozen_layers <= 5:
            raise ValueError(
                f"frozen_layers must lie in 0..5 (stem and four layers), found {self.frozen_layers}"
            )
        if self.frozen_layers and self.norm == "batch":
            raise ValueError(
                "frozen_layers with norm batch: statistics of frozen layers would go on changing"
            )
        self._check_input()

    def _check_input(self) -> None:
        stride = 2 ** (max(self.levels) + 1)
        for name, size in (("input_size", self.input_size), ("body_input_size", self.body_input_size)):
            if any(side < stride or side % stride for side in size):
                raise ValueError(f"{name} {size} is no multiple of the coarsest stride {stride}")
        if min(self.scale, self.body_scale) <= 0:
            raise ValueError(f"scales must be positive, found {self.scale} and {self.body_scale}")
        if self.input_std <= 0:
            raise ValueError(f"input_std must be positive, found {self.input_std}")
        counts = (self.rpn_samples, self.roi_samples, self.proposals_train, self.proposals_test)
        if min(*counts, self.detections_per_slice) < 1:
            raise ValueError("samples, proposals and detections per slice must be at least 1")
        if not (0 <= self.min_score < 1 and 0 < self.nms_iou <= 1):
            raise ValueError(f"min_score {self.min_score} or nms_iou {self.nms_iou} is out of range")


@dataclass(frozen=True, kw_only=True)
class PSMA25DPlan(DetectorPlan):
    """A plan with a ``detector`` on slices."""

    box_dim: ClassVar[Literal[2, 3]] = 2

    detector: Detector
    detector3d: None = None

    @classmethod
    def reads(cls, content: dict[str, Any]) -> bool:
        """Whether the content of a file is a detector's plan, and not one of patches."""
        return super().reads(content) and content.get("detector3d") is None
