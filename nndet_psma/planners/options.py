"""What a user may tell every planner; everything else it reads from the fingerprint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import SchemaError, from_plain

OptionsType = TypeVar("OptionsType", bound="PlannerOptions")


@dataclass(frozen=True, kw_only=True)
class PlannerOptions:
    """Keys of ``plan_cfg`` in the configuration that all systems have; None lets the data or the machine decide.

    Attributes:
        target: machine planned for; "auto" looks for a GPU.
        gpu_memory_gb: memory of one GPU planned for; None asks the GPU, or takes 24 when none is visible.
        num_gpus: GPUs that train together; None takes the visible ones, or 1.
        num_folds: folds of the cross-validation; fewer when there are fewer patients.
        stratify_by: column of clinical.csv kept even over folds; "" for none.
        windows: HU windows (lower, upper).
        spacing: mm (z, y, x) that the network sees.
        margin_coverage: share of training lesions that the CTV grown by the margin must contain.
        min_margin_mm: smallest growth of the CTV (10 pixels in Xu et al. 2023).
        margin_mm: growth of the CTV, whatever the lesions need.
        patch_size: voxels (z, y, x) that a 3D network sees at once.
        batch_size: images per optimiser step, over all GPUs.
        seed: of folds, training and bootstrap.
    """

    target: Literal["auto", "cpu", "gpu"] = "auto"
    gpu_memory_gb: float | None = None
    num_gpus: int | None = None
    num_folds: int = 5
    stratify_by: str = "nccn_risk"
    windows: list[tuple[float, float]] | None = None
    spacing: tuple[float, float, float] | None = None
    margin_coverage: float = 0.99
    min_margin_mm: float = 6.48
    margin_mm: float | None = None
    patch_size: tuple[int, int, int] | None = None
    batch_size: int | None = None
    seed: int = 12345

    def __post_init__(self) -> None:
        if self.num_folds < 2:
            raise ValueError(f"num_folds must be at least 2, found {self.num_folds}")
        if not 0 < self.margin_coverage <= 1:
            raise ValueError(f"margin_coverage must lie in (0, 1], found {self.margin_coverage}")
        self._check_windows()
        self.require(lambda value: value >= 1, "at least 1", "num_gpus", "batch_size")
        self.require(lambda value: value > 0, "positive", "gpu_memory_gb")
        self.require(lambda value: value >= 0, "not negative", "min_margin_mm", "margin_mm")
        self.require(lambda value: min(value) > 0, "positive", "spacing")
        self.require(lambda value: min(value) >= 1, "at least 1", "patch_size")

    def require(self, holds: Callable[[Any], bool], what: str, *names: str) -> None:
        """ValueError where one of these keys has a value for which something does not hold."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not holds(value):
                must = "must not be negative" if what == "not negative" else f"must be {what}"
                raise ValueError(f"{name} {must}, found {value}")

    def _check_windows(self) -> None:
        wrong = [window for window in self.windows or [] if not window[0] < window[1]]
        if wrong:
            raise ValueError(f"windows is (lower, upper) in HU, found {wrong[0]}")
        if self.windows is not None and not self.windows:
            raise ValueError("windows is empty; null takes them from the lesions")

    @classmethod
    def parse(cls: type[OptionsType], content: dict[str, Any]) -> OptionsType:
        """From the configuration's ``plan_cfg``; UserError names the key that is wrong."""
        try:
            return from_plain(cls, content, "plan_cfg")
        except (SchemaError, ValueError) as error:
            raise UserError(
                f"configuration: {error}", remedy="nndet_psma config prints every key with its default"
            ) from None
