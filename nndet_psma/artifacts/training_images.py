"""What the images of the training cases had in common, kept in the plan: a new image is compared with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nndet_psma.artifacts.case_fingerprint import CaseFingerprint
from nndet_psma.artifacts.dataset_summary import AxisRange


@dataclass(frozen=True)
class TrainingImages:
    """Grids of the training images, each axis on its own.

    Attributes:
        spacing_mm: voxel sizes along (z, y, x).
        extent_mm: voxels times voxel size along (z, y, x).
    """

    spacing_mm: AxisRange
    extent_mm: AxisRange

    def __post_init__(self) -> None:
        for name in ("spacing_mm", "extent_mm"):
            rows: AxisRange = getattr(self, name)
            if not all(0 < low <= high for low, high in zip(rows.minimum, rows.maximum, strict=True)):
                raise ValueError(f"{name} must be positive, its minimum not above its maximum, found {rows}")

    @classmethod
    def of(cls, cases: Sequence[CaseFingerprint]) -> TrainingImages | None:
        """Of the cases of a fingerprint; None without cases."""
        spacing = AxisRange.of([case.spacing for case in cases])
        extent = AxisRange.of([_extent(case) for case in cases])
        return None if spacing is None or extent is None else cls(spacing, extent)


def _extent(case: CaseFingerprint) -> tuple[float, float, float]:
    z, y, x = (count * step for count, step in zip(case.shape, case.spacing, strict=True))
    return z, y, x
