"""What a user may tell the planner; everything else it reads from the fingerprint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import SchemaError, from_plain


@dataclass(frozen=True)
class PlannerOptions:
    """Keys of ``plan_cfg`` in the configuration.

    Attributes:
        target: machine planned for; "auto" looks for a GPU.
        gpu_memory_gb: memory of the GPU planned for; None asks the GPU, or takes 24 when none is visible.
        num_folds: folds of the cross-validation; fewer when there are fewer patients.
        stratify_by: column of clinical.csv kept even over folds.
        quantiles: tails in per cent cut off on each side for the HU windows (Xu et al. 2023, table 2).
        soft_tissue: HU window added to the quantile windows.
        max_voters: windows that vote at most; None lets the target machine decide.
        margin_coverage: share of training lesions that the grown CTV must contain.
        min_margin_mm: smallest growth of the CTV (10 pixels in Xu et al. 2023).
        wsi_pretraining: whether a whole-slice stage comes first.
        iterations_factor: multiplies every stage's iterations.
        seed: of folds, training and bootstrap.
    """

    target: Literal["auto", "cpu", "gpu"] = "auto"
    gpu_memory_gb: float | None = None
    num_folds: int = 5
    stratify_by: str = "nccn_risk"
    quantiles: list[float] = field(default_factory=lambda: [0.5, 1.0, 1.5, 2.0])
    soft_tissue: tuple[float, float] = (-125.0, 225.0)
    max_voters: int | None = None
    margin_coverage: float = 0.99
    min_margin_mm: float = 6.48
    wsi_pretraining: bool = True
    iterations_factor: float = 1.0
    seed: int = 12345

    def __post_init__(self) -> None:
        if self.num_folds < 2:
            raise ValueError(f"num_folds must be at least 2, found {self.num_folds}")
        if not all(0 < q < 50 for q in self.quantiles):
            raise ValueError(f"quantiles are tails in per cent between 0 and 50, found {self.quantiles}")
        if self.max_voters is not None and self.max_voters < 1:
            raise ValueError(f"max_voters must be at least 1, found {self.max_voters}")
        if not 0 < self.margin_coverage <= 1:
            raise ValueError(f"margin_coverage must lie in (0, 1], found {self.margin_coverage}")
        if self.iterations_factor < 0:
            raise ValueError(f"iterations_factor must not be negative, found {self.iterations_factor}")
        self._check_quantities()

    def _check_quantities(self) -> None:
        if not self.soft_tissue[0] < self.soft_tissue[1]:
            raise ValueError(f"soft_tissue is (lower, upper) in HU, found {self.soft_tissue}")
        if self.min_margin_mm < 0:
            raise ValueError(f"min_margin_mm must not be negative, found {self.min_margin_mm}")
        if self.gpu_memory_gb is not None and self.gpu_memory_gb <= 0:
            raise ValueError(f"gpu_memory_gb must be positive, found {self.gpu_memory_gb}")

    @classmethod
    def parse(cls, content: dict[str, Any]) -> PlannerOptions:
        """From the configuration's ``plan_cfg``; UserError names the key that is wrong."""
        try:
            return from_plain(cls, content, "plan_cfg")
        except (SchemaError, ValueError) as error:
            raise UserError(f"configuration: {error}") from None
