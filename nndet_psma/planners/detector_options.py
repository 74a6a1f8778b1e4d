"""What a user may tell the planners of detectors beside what all planners are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nndet_psma.planners.options import PlannerOptions


@dataclass(frozen=True, kw_only=True)
class DetectorOptions(PlannerOptions):
    """Keys of ``plan_cfg``; None lets the data or the target machine decide.

    Attributes:
        channels: "voters" trains one detector per HU window, which then vote; "multiwindow" one detector that sees
            all windows as channels.
        quantiles: tails in per cent cut off on each side for the HU windows (Xu et al. 2023, table 2); ``windows``, the
            general one last, take their place.
        soft_tissue: HU window added to the quantile windows.
        max_voters: windows used at most.
        neighbours: slices on each side of the centre slice.
        ctv_distance_mm: makes the distance to the search region a channel, white from so far outside on; None: no.
        backbone: torchvision ResNet name.
        weights: where the backbone starts: "none", "imagenet" or a path.
        input_side: longest side of the largest slice in detector pixels (800 in Xu et al. 2023).
        anchors: "fitted" to the lesions, or "torchvision" for the fixed ones of its detectors.
        augmentation: "auto" by machine, "paper" or "light".
        schedule: "auto" scales the paper's to data and batch (a short one on CPU); "paper" sees as many images as
            the paper, whatever the machine.
        grids: values that the sweep tries: from the "data", or the "paper"'s table 3.
        wsi_pretraining: whether a whole-slice stage comes first.
        iterations_factor: multiplies every stage's iterations.
    """

    channels: Literal["voters", "multiwindow"] = "voters"
    quantiles: list[float] = field(default_factory=lambda: [0.5, 1.0, 1.5, 2.0])
    soft_tissue: tuple[float, float] = (-125.0, 225.0)
    max_voters: int | None = None
    neighbours: int | None = None
    ctv_distance_mm: float | None = None
    backbone: str | None = None
    weights: str | None = None
    input_side: int | None = None
    anchors: Literal["fitted", "torchvision"] = "fitted"
    augmentation: Literal["auto", "paper", "light"] = "auto"
    schedule: Literal["auto", "paper"] = "auto"
    grids: Literal["data", "paper"] = "data"
    wsi_pretraining: bool = True
    iterations_factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 < q < 50 for q in self.quantiles):
            raise ValueError(f"quantiles are tails in per cent between 0 and 50, found {self.quantiles}")
        if not self.soft_tissue[0] < self.soft_tissue[1]:
            raise ValueError(f"soft_tissue is (lower, upper) in HU, found {self.soft_tissue}")
        self.require(lambda value: value >= 1, "at least 1", "max_voters")
        self.require(lambda value: value >= 0, "not negative", "neighbours", "iterations_factor")
        self.require(lambda value: value > 0, "positive", "input_side", "ctv_distance_mm")
