"""What a user may tell the planner of node segmentation beside what all planners are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nndet_psma.planners.options import PlannerOptions


@dataclass(frozen=True, kw_only=True)
class NodeSegOptions(PlannerOptions):
    """Keys of ``plan_cfg``; None lets the data or the target machine decide.

    ``windows`` become channels beside nnU-Net's own CT channel; ``spacing`` and ``patch_size`` are otherwise nnU-Net's.

    Attributes:
        crop: "ctv", "body" or "image"; "auto" takes the CTV where there is one.
        context_mm: what the network sees beyond the margin; added to it.
        ctv_channel: show the CTV to the network as a channel.
        quantitative: modalities whose values mean the same in every case, by name; None decides by role and data.
        configuration: of nnU-Net.
        network: "auto" takes ``plain`` on CPU, else the residual encoder preset that the GPU holds.
        matrix: voxels (z, y, x) that a median image gets (dwi2022: 64, 256, 256) instead of a spacing.
        loss: see ``SegmentationTraining``.
        tversky_alpha: weight of false positives.
        tversky_beta: weight of false negatives.
        optimizer: "sgd" or "adam".
        learning_rate: at the start.
        schedule: "poly" or "constant".
        patience: epochs without a better validation loss that end the training.
        epochs: of the training.
        iterations: steps per epoch.
        epoch_images: images per epoch, in as many steps as the planned batch needs; ``iterations`` goes before it.
        validation_iterations: validation batches per epoch.
        augmentation: "nnunet", "dwi2022" or "none".
        mirror: mirror in training and prediction.
        foreground_share: share of a batch centred on nodes.
        case_share: least share of draws that take a case with a node.
        node_balance: 1 every node alike, 0 every voxel alike.
        threshold: probability from which on a voxel belongs to a node.
        low_threshold: the same of weak candidates.
        score: of a node: "max", "mean" or "percentile_95".
    """

    crop: Literal["auto", "ctv", "body", "image"] = "auto"
    context_mm: float = 20.0
    ctv_channel: bool = False
    quantitative: list[str] | None = None
    configuration: Literal["3d_fullres", "3d_lowres", "2d"] = "3d_fullres"
    network: Literal["auto", "plain", "resenc_m", "resenc_l", "resenc_xl"] = "auto"
    matrix: tuple[int, int, int] | None = None
    loss: Literal["dice_ce", "dice", "tversky", "tversky_ce"] = "dice_ce"
    tversky_alpha: float = 0.3
    tversky_beta: float = 0.7
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float | None = None
    schedule: Literal["poly", "constant"] = "poly"
    patience: int | None = None
    epochs: int | None = None
    iterations: int | None = None
    epoch_images: int | None = None
    validation_iterations: int | None = None
    augmentation: Literal["nnunet", "dwi2022", "none"] = "nnunet"
    mirror: bool | None = None
    foreground_share: float | None = None
    case_share: float | None = None
    node_balance: float = 1.0
    threshold: float = 0.5
    low_threshold: float = 0.1
    score: Literal["max", "mean", "percentile_95"] = "percentile_95"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(lambda value: value >= 0, "not negative", "context_mm")
        self.require(
            lambda value: value > 0, "positive", "learning_rate", "epochs", "iterations", "epoch_images"
        )
        self.require(lambda value: min(value) > 0, "positive", "matrix")
        if self.spacing is not None and self.matrix is not None:
            raise ValueError("spacing and matrix exclude each other")
