"""Plan of a segmentation by nnU-Net: what is ours to decide, what nnU-Net decided, and why."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from nndet_psma.artifacts.box_plan import MOST_MM, BoxPlan
from nndet_psma.artifacts.channels import Intensity, Window
from nndet_psma.core.schema import AtMost, Label, Number, Within

VOTER = "segmentation"
"""Name of the one voter that a segmentation has."""

FILE_ENDING = re.compile(r"(\.[a-z]{2,6}){1,2}")
"""Of images: .nii.gz, .nrrd, .mha; names of cases are put before it, so that it must be no path."""

LOSSES = ("dice_ce", "dice", "tversky", "tversky_ce")
Steps = tuple[int, ...]


@dataclass(frozen=True)
class Channel:
    """One input channel of the network.

    Attributes:
        modality: index of the raw file ``_000N`` it comes from; several channels may share one.
        name: nnU-Net's channel name, which chooses the normalisation.
        scheme: class of nnU-Net that normalises it.
        lower: lower end of the HU window in HU; None leaves the limits to nnU-Net's fingerprint.
        upper: upper end of the HU window in HU.
    """

    modality: Number
    name: Label
    scheme: Literal["CTNormalization", "ZScoreNormalization", "NoNormalization"]
    lower: Intensity | None = None
    upper: Intensity | None = None

    def __post_init__(self) -> None:
        if (self.lower is None) != (self.upper is None):
            raise ValueError(f"channel '{self.name}': a window needs both ends")
        if self.lower is not None and self.upper is not None:
            if not self.lower < self.upper:
                raise ValueError(f"channel '{self.name}': lower {self.lower} is not below upper {self.upper}")
            if self.scheme != "CTNormalization":
                raise ValueError(f"channel '{self.name}': windows need CTNormalization, not {self.scheme}")


@dataclass(frozen=True)
class SegmentationTraining:
    """What ``nnUNetTrainerNodeSeg`` does otherwise than nnU-Net's own trainer; stands in nnU-Net's plans, too.

    Attributes:
        loss: Dice and cross-entropy (nnU-Net), Dice alone (dwi2022), Tversky with or without cross-entropy.
        tversky_alpha: weight of false positives.
        tversky_beta: weight of false negatives.
        optimizer: SGD with Nesterov momentum 0.99 (nnU-Net), or Adam (dwi2022).
        learning_rate: at the start.
        schedule: polynomial decay over the epochs (nnU-Net), or none.
        patience: epochs without a better validation loss after which training ends; None trains all epochs.
        epochs: of ``iterations`` steps each.
        iterations: steps per epoch.
        validation_iterations: validation batches per epoch.
        augmentation: nnU-Net's, or rotation, shear and translation as in dwi2022, or none.
        mirror: mirror images in training and prediction.
        foreground_share: share of the patches of a batch that are centred on a node.
        case_share: least share of draws that take a case with a node.
        node_balance: 1 centres patches on every node equally often, 0 on every node voxel (nnU-Net).
        save_every: epochs between checkpoints.
        seed: of weights, patches and augmentation; None leaves them to chance as nnU-Net does.
    """

    loss: Literal["dice_ce", "dice", "tversky", "tversky_ce"] = "dice_ce"
    tversky_alpha: float = 0.3
    tversky_beta: float = 0.7
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.01
    schedule: Literal["poly", "constant"] = "poly"
    patience: int | None = None
    epochs: int = 1000
    iterations: int = 250
    validation_iterations: int = 50
    augmentation: Literal["nnunet", "dwi2022", "none"] = "nnunet"
    mirror: bool = True
    foreground_share: float = 0.33
    case_share: float = 0.0
    node_balance: float = 1.0
    save_every: int = 50
    seed: int | None = 12345

    def __post_init__(self) -> None:
        counts = ("epochs", "iterations", "validation_iterations", "save_every")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1, found {self.patience}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, found {self.learning_rate}")
        if min(self.tversky_alpha, self.tversky_beta) < 0 or self.tversky_alpha + self.tversky_beta <= 0:
            raise ValueError("tversky_alpha and tversky_beta must not be negative, nor both 0")
        for name in ("foreground_share", "node_balance"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], found {getattr(self, name)}")
        if not 0 <= self.case_share < 1:
            raise ValueError(f"case_share must lie in [0, 1), found {self.case_share}")


@dataclass(frozen=True)
class Candidates:
    """How nodes are made of probabilities.

    Attributes:
        threshold: voxels of at least this foreground probability are a node; contiguous ones (26 neighbours) are one.
        low_threshold: contiguous voxels of at least this probability that hold no node are a weak candidate.
        score: of a node: the largest, the mean or the 95 % quantile of its voxels' probabilities.
        min_voxels: smaller components are dropped.
    """

    threshold: float = 0.5
    low_threshold: float = 0.1
    score: Literal["max", "mean", "percentile_95"] = "percentile_95"
    min_voxels: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.low_threshold <= self.threshold <= 1:
            raise ValueError(
                f"thresholds must ascend in (0, 1], found {self.low_threshold} and {self.threshold}"
            )
        if self.min_voxels < 1:
            raise ValueError(f"min_voxels must be at least 1, found {self.min_voxels}")


@dataclass(frozen=True, kw_only=True)
class NodeSegPlan(BoxPlan):
    """Everything needed to export, train, tune and predict; network and patch stand in nnU-Net's own plans, too.

    Attributes:
        crop: box that is exported: round the CTV, round the body, or the whole image.
        context_mm: what the exported box holds beyond the margin.
        channels: of the network, in order.
        dataset: nnU-Net's name ``DatasetXXX_Name``.
        configuration: of nnU-Net: ``3d_fullres``, ``2d`` ...
        file_ending: of the exported images.
        network: ``plain`` U-Net, or residual encoder preset ``resenc_m``, ``resenc_l``, ``resenc_xl``.
        patch_size: voxels (z, y, x) of nnU-Net's transposed axes.
        features: channels of every stage.
        training: of ``nnUNetTrainerNodeSeg``.
        candidates: from probabilities to nodes.
    """

    schema: ClassVar[str] = "nndet_psma.nodeseg_plan"
    version: ClassVar[int] = 1

    crop: Literal["ctv", "body", "image"]
    context_mm: Annotated[float, Within(0, MOST_MM)]
    channels: Annotated[list[Channel], AtMost(100)]
    dataset: str
    configuration: str
    file_ending: str
    network: Literal["plain", "resenc_m", "resenc_l", "resenc_xl"]
    patch_size: Steps
    features: list[int]
    training: SegmentationTraining
    candidates: Candidates

    def __post_init__(self) -> None:
        super().__post_init__()
        if not FILE_ENDING.fullmatch(self.file_ending):
            raise ValueError(f"file_ending: expected one such as .nii.gz, found {self.file_ending[:40]!r}")
        if not self.channels:
            raise ValueError("a plan needs at least one channel")
        for channel in self.channels:
            if str(channel.modality) not in self.modalities:
                raise ValueError(f"channel '{channel.name}' names modality {channel.modality}, which is none")
        if self.crop == "ctv" and self.ctv_modality is None:
            raise ValueError("crop is ctv, but no modality is the CTV")
        if self.context_mm < 0:
            raise ValueError(f"context_mm must not be negative, found {self.context_mm}")
        if min(self.patch_size, default=0) < 1:
            raise ValueError(f"patch_size must be positive, found {self.patch_size}")

    @property
    def windows(self) -> list[Window]:
        """HU windows among the channels."""
        return [
            Window(f"{channel.lower:g}..{channel.upper:g}", channel.lower, channel.upper)
            for channel in self.channels
            if channel.lower is not None and channel.upper is not None
        ]
