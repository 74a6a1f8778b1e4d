"""Choices that depend on the machine only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nndet_psma.artifacts.plan import Target


@dataclass(frozen=True)
class Profile:
    """What a machine affords beside backbone and batch.

    Attributes:
        weights: start of the backbone.
        norm: see ``artifacts.plan.Detector``.
        fpn_channels: channels of the pyramid.
        head_channels: width of the box head.
        rpn_samples: anchors per image in the RPN loss.
        roi_samples: boxes per image in the box loss.
        proposals: proposals after NMS, training and test.
        max_pixels: detector pixels per slice the planner may spend.
        lesion_pixels: side the median lesion should have in the detector's input.
        voters: windows that vote at most; None = all.
        reason: for the plan.
    """

    weights: str
    norm: Literal["batch", "frozen", "group"]
    fpn_channels: int
    head_channels: int
    rpn_samples: int
    roi_samples: int
    proposals: int
    max_pixels: int
    lesion_pixels: float
    voters: int | None
    reason: str


_CPU = Profile(
    weights="none",
    norm="batch",
    fpn_channels=64,
    head_channels=128,
    rpn_samples=64,
    roi_samples=32,
    proposals=100,
    max_pixels=28_000,
    lesion_pixels=16.0,
    voters=3,
    reason="CPU: from scratch, 32 boxes per image (RoIAlign's backward pass is slow there), 3 voters, small slices",
)
_GPU = Profile(
    weights="imagenet",
    norm="frozen",
    fpn_channels=256,
    head_channels=1024,
    rpn_samples=256,
    roi_samples=512,
    proposals=1000,
    max_pixels=800 * 800,
    lesion_pixels=32.0,
    voters=None,
    reason="GPU: ImageNet weights as in Xu et al. 2023, torchvision's sampling",
)


def choose_profile(target: Target) -> Profile:
    """Sampling, widths and pixel budget for the target.

    CPU: torchvision's RoIAlign backward is slow there (512 boxes per image cost seconds), so few boxes and a narrow
    network. GPU: torchvision's and the paper's sizes.
    """
    return _CPU if target.device == "cpu" else _GPU
