"""What a user may tell the planner of node segmentation; everything else it reads from the fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import SchemaError, from_plain


@dataclass(frozen=True)
class NodeSegOptions:
    """Keys of ``plan_cfg``; None lets the data or the target machine decide.

    Attributes:
        target: machine planned for; "auto" looks for a GPU.
        gpu_memory_gb: memory of one GPU planned for.
        num_gpus: GPUs that train together.
        num_folds: folds of the cross-validation; fewer when there are fewer patients.
        stratify_by: column of clinical.csv kept even over folds; "" for none.
        crop: "ctv", "body" or "image"; "auto" takes the CTV where there is one.
        margin_mm: growth of the box that is cut out.
        context_mm: what the network sees beyond the margin; added to it.
        margin_coverage: share of training lesions that the CTV grown by the margin must contain.
        min_margin_mm: smallest margin (Xu et al. 2023: 6.48 mm).
        ctv_channel: show the CTV to the network as a channel.
        windows: HU windows (lower, upper) that become channels beside nnU-Net's own CT channel.
        quantitative: modalities whose values mean the same in every case, by name; None decides by role and data.
        configuration: of nnU-Net.
        network: "auto" takes ``plain`` on CPU, else the residual encoder preset that the GPU holds.
        spacing: mm (z, y, x); None leaves it to nnU-Net.
        matrix: voxels (z, y, x) that a median image gets (dwi2022: 64, 256, 256) instead of a spacing.
        patch_size: voxels (z, y, x).
        batch_size: patches per step; fewer where memory does not hold them.
        loss: see ``SegmentationTraining``.
        tversky_alpha: weight of false positives.
        tversky_beta: weight of false negatives.
        optimizer: "sgd" or "adam".
        learning_rate: at the start.
        schedule: "poly" or "constant".
        patience: epochs without a better validation loss that end the training.
        epochs: of the training.
        iterations: steps per epoch.
        validation_iterations: validation batches per epoch.
        augmentation: "nnunet", "dwi2022" or "none".
        mirror: mirror in training and prediction.
        foreground_share: share of a batch centred on nodes.
        case_share: least share of draws that take a case with a node.
        node_balance: 1 every node alike, 0 every voxel alike.
        threshold: probability from which on a voxel belongs to a node.
        low_threshold: the same of weak candidates.
        score: of a node: "max", "mean" or "percentile_95".
        seed: of folds, training and bootstrap.
    """

    target: Literal["auto", "cpu", "gpu"] = "auto"
    gpu_memory_gb: float | None = None
    num_gpus: int | None = None
    num_folds: int = 5
    stratify_by: str = "nccn_risk"
    crop: Literal["auto", "ctv", "body", "image"] = "auto"
    margin_mm: float | None = None
    context_mm: float = 20.0
    margin_coverage: float = 0.99
    min_margin_mm: float = 6.48
    ctv_channel: bool = False
    windows: list[tuple[float, float]] | None = None
    quantitative: list[str] | None = None
    configuration: Literal["3d_fullres", "3d_lowres", "2d"] = "3d_fullres"
    network: Literal["auto", "plain", "resenc_m", "resenc_l", "resenc_xl"] = "auto"
    spacing: tuple[float, float, float] | None = None
    matrix: tuple[int, int, int] | None = None
    patch_size: tuple[int, int, int] | None = None
    batch_size: int | None = None
    loss: Literal["dice_ce", "dice", "tversky", "tversky_ce"] = "dice_ce"
    tversky_alpha: float = 0.3
    tversky_beta: float = 0.7
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float | None = None
    schedule: Literal["poly", "constant"] = "poly"
    patience: int | None = None
    epochs: int | None = None
    iterations: int | None = None
    validation_iterations: int | None = None
    augmentation: Literal["nnunet", "dwi2022", "none"] = "nnunet"
    mirror: bool | None = None
    foreground_share: float | None = None
    case_share: float | None = None
    node_balance: float = 1.0
    threshold: float = 0.5
    low_threshold: float = 0.1
    score: Literal["max", "mean", "percentile_95"] = "percentile_95"
    seed: int = 12345

    def __post_init__(self) -> None:
        if self.num_folds < 2:
            raise ValueError(f"num_folds must be at least 2, found {self.num_folds}")
        if not 0 < self.margin_coverage <= 1:
            raise ValueError(f"margin_coverage must lie in (0, 1], found {self.margin_coverage}")
        wrong = [window for window in self.windows or [] if not window[0] < window[1]]
        if wrong:
            raise ValueError(f"windows are (lower, upper) in HU, found {wrong[0]}")
        for name in ("margin_mm", "context_mm", "min_margin_mm"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} must not be negative, found {value}")
        self._check_sizes()

    def _check_sizes(self) -> None:
        for name in ("gpu_memory_gb", "num_gpus", "batch_size", "learning_rate", "epochs", "iterations"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, found {value}")
        for name in ("spacing", "matrix", "patch_size"):
            value = getattr(self, name)
            if value is not None and min(value) <= 0:
                raise ValueError(f"{name} must be positive, found {value}")
        if self.spacing is not None and self.matrix is not None:
            raise ValueError("spacing and matrix exclude each other")

    @classmethod
    def parse(cls, content: dict[str, Any]) -> NodeSegOptions:
        """From the configuration's ``plan_cfg``; UserError names the key that is wrong."""
        try:
            return from_plain(cls, content, "plan_cfg")
        except (SchemaError, ValueError) as error:
            raise UserError(f"configuration: {error}") from None
