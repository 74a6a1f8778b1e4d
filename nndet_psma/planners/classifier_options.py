"""What a user may tell the planner of a classifier; everything else it reads from the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nndet_psma.artifacts.classifier_plan import Dimension, Input, Sampling
from nndet_psma.planners.options import PlannerOptions


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions(PlannerOptions):
    """Keys of ``plan_cfg``; None lets the data or the machine decide.

    Attributes:
        input: what the network sees: CT, CT and mask, or CT inside the mask only.
        outside_hu: what stands outside of the mask in "ct*mask"; None is the lower end of each window.
        dimension: slices or volume.
        neighbours: slices on each side of the central one ("2d" only).
        crop_mm: side of the cube, or square, that the network sees.
        sampling: which objects a batch shows; None balances classes within stations where there are any.
        network: kind of the network.
        widths: its channels.
        dropout: share of pooled features left out in training.
        label_smoothing: of the cross entropy.
        members: networks per fold, which differ by their seed.
        blind: also train a network that sees the mask only, for the table of shortcuts.
        epochs: passes over the balanced set.
        learning_rate: peak rate.
        rotation_degrees: of the augmentation.
        shift_voxels: of the augmentation.
        flip: axes (of "zyx") that the augmentation mirrors.
        brightness: of the augmentation.
    """

    input: Input = "ct+mask"
    outside_hu: float | None = None
    dimension: Dimension | None = None
    neighbours: int = 0
    crop_mm: float | None = None
    sampling: Sampling | None = None
    network: Literal["resnet", "vgg16conv"] = "resnet"
    widths: list[int] | None = None
    dropout: float = 0.2
    label_smoothing: float = 0.02
    members: int = 1
    blind: bool = True
    epochs: int = 50
    learning_rate: float | None = None
    rotation_degrees: float = 180.0
    shift_voxels: float = 2.0
    flip: str = "zx"
    brightness: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(lambda value: value >= 1, "at least 1", "members", "epochs")
        self.require(lambda value: value > 0, "positive", "crop_mm", "learning_rate")
        self.require(
            lambda value: value >= 0, "not negative", "neighbours", "rotation_degrees", "shift_voxels"
        )
        if self.neighbours and self.dimension != "2d":
            raise ValueError(f"neighbours are of slices: dimension must be 2d, found {self.dimension}")
        if set(self.flip) - set("zyx"):
            raise ValueError(f"flip names axes of zyx, found '{self.flip}'")
        if not 0 <= self.brightness < 1:
            raise ValueError(f"brightness must lie in [0, 1), found {self.brightness}")
