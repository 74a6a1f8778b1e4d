"""What a user may tell the planner; everything else it reads from the fingerprint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import SchemaError, from_plain


@dataclass(frozen=True)
class PlannerOptions:
    """Keys of ``plan_cfg`` in the configuration; None lets the data or the target machine decide.

    Attributes:
        target: machine planned for; "auto" looks for a GPU.
        gpu_memory_gb: memory of one GPU planned for; None asks the GPU, or takes 24 when none is visible.
        num_gpus: GPUs that train together; None takes the visible ones, or 1.
        num_folds: folds of the cross-validation; fewer when there are fewer patients.
        stratify_by: column of clinical.csv kept even over folds; "" for none.
        channels: "voters" trains one detector per HU window, which then vote; "multiwindow" one detector that sees
            all windows as channels.
        quantiles: tails in per cent cut off on each side for the HU windows (Xu et al. 2023, table 2).
        soft_tissue: HU window added to the quantile windows.
        windows: HU windows (lower, upper) instead of the quantiles, the general one last.
        max_voters: windows used at most.
        spacing: grid of the store, mm (z, y, x).
        neighbours: slices on each side of the centre slice.
        margin_coverage: share of training lesions that the grown CTV must contain.
        min_margin_mm: smallest growth of the CTV (10 pixels in Xu et al. 2023).
        margin_mm: growth of the CTV, whatever the lesions need.
        backbone: torchvision ResNet name.
        weights: where the backbone starts: "none", "imagenet" or a path.
        batch_size: slices (patches in 3D) per optimiser step, over all GPUs.
        patch_size: voxels (z, y, x) that a 3D network sees at once; rounded up to its strides.
        input_side: longest side of the largest slice in detector pixels (800 in Xu et al. 2023).
        anchors: "fitted" to the lesions, or "torchvision" for the fixed ones of its detectors.
        augmentation: "auto" by machine, "paper" or "light".
        schedule: "auto" scales the paper's to data and batch (a short one on CPU); "paper" sees as many images as
            the paper, whatever the machine.
        grids: values that the sweep tries: from the "data", or the "paper"'s table 3.
        wsi_pretraining: whether a whole-slice stage comes first.
        iterations_factor: multiplies every stage's iterations.
        seed: of folds, training and bootstrap.
    """

    target: Literal["auto", "cpu", "gpu"] = "auto"
    gpu_memory_gb: float | None = None
    num_gpus: int | None = None
    num_folds: int = 5
    stratify_by: str = "nccn_risk"
    channels: Literal["voters", "multiwindow"] = "voters"
    quantiles: list[float] = field(default_factory=lambda: [0.5, 1.0, 1.5, 2.0])
    soft_tissue: tuple[float, float] = (-125.0, 225.0)
    windows: list[tuple[float, float]] | None = None
    max_voters: int | None = None
    spacing: tuple[float, float, float] | None = None
    neighbours: int | None = None
    margin_coverage: float = 0.99
    min_margin_mm: float = 6.48
    margin_mm: float | None = None
    backbone: str | None = None
    weights: str | None = None
    batch_size: int | None = None
    patch_size: tuple[int, int, int] | None = None
    input_side: int | None = None
    anchors: Literal["fitted", "torchvision"] = "fitted"
    augmentation: Literal["auto", "paper", "light"] = "auto"
    schedule: Literal["auto", "paper"] = "auto"
    grids: Literal["data", "paper"] = "data"
    wsi_pretraining: bool = True
    iterations_factor: float = 1.0
    seed: int = 12345

    def __post_init__(self) -> None:
        if self.num_folds < 2:
            raise ValueError(f"num_folds must be at least 2, found {self.num_folds}")
        if not all(0 < q < 50 for q in self.quantiles):
            raise ValueError(f"quantiles are tails in per cent between 0 and 50, found {self.quantiles}")
        if not 0 < self.margin_coverage <= 1:
            raise ValueError(f"margin_coverage must lie in (0, 1], found {self.margin_coverage}")
        self._check_windows()
        self._check_quantities()

    def _check_windows(self) -> None:
        windows = [self.soft_tissue, *(self.windows or [])]
        wrong = [window for window in windows if not window[0] < window[1]]
        if wrong:
            name = "soft_tissue" if wrong[0] is self.soft_tissue else "windows"
            raise ValueError(f"{name} is (lower, upper) in HU, found {wrong[0]}")
        if self.windows is not None and not self.windows:
            raise ValueError("windows is empty; null takes them from the lesions")

    def _check_quantities(self) -> None:
        for name in ("max_voters", "num_gpus", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}")
        for name in ("min_margin_mm", "margin_mm", "neighbours", "iterations_factor"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} must not be negative, found {value}")
        for name in ("gpu_memory_gb", "input_side"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, found {value}")
        if self.patch_size is not None and min(self.patch_size) < 1:
            raise ValueError(f"patch_size must be at least 1, found {self.patch_size}")
        if self.spacing is not None and min(self.spacing) <= 0:
            raise ValueError(f"spacing must be positive, found {self.spacing}")

    @classmethod
    def parse(cls, content: dict[str, Any]) -> PlannerOptions:
        """From the configuration's ``plan_cfg``; UserError names the key that is wrong."""
        try:
            return from_plain(cls, content, "plan_cfg")
        except (SchemaError, ValueError) as error:
            raise UserError(f"configuration: {error}") from None
