"""What the target machine affords: network size, sampling, batch. A table and a memory estimate, no GPU needed."""

from __future__ import annotations

from dataclasses import dataclass

from nndet_psma.artifacts.plan import Target

# Bytes of activations and gradients per input pixel in fp32 training, all layers trainable. Estimates from the layer
# widths (sum of channels / stride^2 x 4 bytes x about 3 copies); not measured on a GPU yet.
_BYTES_PER_PIXEL = {"resnet18": 1800, "resnet50": 4500, "resnext50_32x4d": 5200, "resnext101_32x8d": 11000}
_WEIGHT_GB = {"resnet18": 0.3, "resnet50": 0.8, "resnext50_32x4d": 0.8, "resnext101_32x8d": 2.0}
_HEAD_GB_PER_IMAGE = 0.35  # 512 sampled boxes x 256 channels x 7 x 7 and their gradients
_USABLE_SHARE = 0.8
_PAPER_BATCH = 64


@dataclass(frozen=True)
class Profile:
    """Choices that depend on the machine only.

    Attributes:
        backbone: torchvision name.
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

    backbone: str
    weights: str
    norm: str
    fpn_channels: int
    head_channels: int
    rpn_samples: int
    roi_samples: int
    proposals: int
    max_pixels: int
    lesion_pixels: float
    voters: int | None
    reason: str


def choose_profile(target: Target) -> Profile:
    """Network and sampling for the target.

    CPU: torchvision's RoIAlign backward is slow there (512 boxes per image cost seconds), so few boxes and a narrow
    ResNet-18 trained from scratch. GPU: torchvision's and the paper's sizes, backbone by memory; Xu et al. 2023 use
    a ResNeXt with ImageNet weights.
    """
    if target.device == "cpu":
        return Profile(
            "resnet18", "none", "batch", 64, 128, 64, 32, 100, 28_000, 16.0, 3,
            "CPU: narrow ResNet-18 from scratch, 32 boxes per image, 3 voters, small slices",
        )  # fmt: skip
    backbone = "resnext50_32x4d" if target.memory_gb < 24 else "resnext101_32x8d"
    return Profile(
        backbone, "imagenet", "frozen", 256, 1024, 256, 512, 1000, 800 * 800, 32.0, None,
        f"GPU with {target.memory_gb:g} GB: {backbone} with ImageNet weights, torchvision's sampling",
    )  # fmt: skip


def estimate_memory_gb(backbone: str, pixels: int, batch: int) -> float:
    """Training memory (GB) of a batch of slices with ``pixels`` detector pixels each. An estimate."""
    per_image = pixels * _BYTES_PER_PIXEL[backbone] / 1e9 + _HEAD_GB_PER_IMAGE
    return _WEIGHT_GB[backbone] + batch * per_image


def choose_batch_size(target: Target, backbone: str, pixels: int) -> int:
    """Slices per step: 4 on CPU; on a GPU what fits in 80 % of its memory, at most the paper's 64."""
    if target.device == "cpu":
        return 4
    batch = _PAPER_BATCH
    while batch > 1 and estimate_memory_gb(backbone, pixels, batch) > _USABLE_SHARE * target.memory_gb:
        batch -= 1
    return batch
