"""What a sweep is given: predictions and truth of a validation case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nndet_psma.boxes.detections import Detections
from nndet_psma.core.errors import UserError
from nndet_psma.postproc.steps.steps import RawPredictions


@dataclass(frozen=True)
class SweepCase:
    """Predictions and truth of one validation case, on the grid of its store.

    Attributes:
        case_id: name of the case.
        raw: predictions of every voter, see :data:`nndet_psma.postproc.steps.steps.RawPredictions`; every case needs
            the same voters.
        truth: 2D slice boxes of the lesions with columns ``slice`` (axial index) and ``lesion`` (index from 0); for
            detectors on volumes one 3D box per lesion, an empty one (all zeros) where the crop lost it.
        num_lesions: lesions of the case; those without a slice box (lost to the crop) count as missed.
        num_slices: axial slices of the case.
        spacing: voxel size in mm (z, y, x).
        patient: whose case it is; None where every case is a patient.

    Raises:
        ValueError: a lesion index is not below ``num_lesions``, or a column is missing.
    """

    case_id: str
    raw: RawPredictions
    truth: Detections
    num_lesions: int
    num_slices: int
    spacing: tuple[float, float, float]
    patient: str | None = None

    def __post_init__(self) -> None:
        if len(self.truth) == 0:
            return
        if self.truth.dim == 3:
            if len(self.truth) != self.num_lesions:
                raise ValueError(f"{self.case_id}: {len(self.truth)} boxes of {self.num_lesions} lesions")
            return
        missing = {"slice", "lesion"} - set(self.truth.columns)
        if missing:
            raise ValueError(f"{self.case_id}: truth without the columns {sorted(missing)}")
        highest = int(self.truth.columns["lesion"].max())
        if highest >= self.num_lesions:
            raise ValueError(f"{self.case_id}: lesion {highest}, but only {self.num_lesions} lesions")


def check_cases(cases: Sequence[SweepCase]) -> None:
    """Refuse cases that thresholds cannot be tuned on.

    Raises:
        UserError: no cases, or no lesion in any of them.
        ValueError: cases with different voters.
    """
    remedy = "Keep the default thresholds, or give the validation set cases with lesions"
    if not cases:
        raise UserError("no validation case: thresholds cannot be tuned", remedy=remedy)
    if not any(case.num_lesions for case in cases):
        raise UserError(
            "no lesion in any validation case: thresholds cannot be tuned",
            expected="at least one lesion",
            found=f"none in {len(cases)} cases",
            remedy=remedy,
        )
    for case in cases:
        if set(case.raw) != set(cases[0].raw) or not case.raw:
            raise ValueError(
                f"every case needs the same voters, at least one: {cases[0].case_id} has {sorted(cases[0].raw)}, "
                f"{case.case_id} has {sorted(case.raw)}"
            )
