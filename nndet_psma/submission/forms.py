"""What is handed to others: the lesions of every case, chosen from its prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.prediction import PredictedLesion, Prediction
from nndet_psma.boxes.box import Boxes, empty_boxes
from nndet_psma.boxes.geometry import Geometry

Which = Literal["lesions", "candidates"]


@dataclass(frozen=True)
class SubmittedCase:
    """One case as it is handed over.

    Attributes:
        case_id: name.
        search_region: "ctv", "body" or "unknown".
        image: grid of the image file; boxes are in its voxels.
        lesions: best first.
    """

    case_id: str
    search_region: str
    image: Geometry
    lesions: list[PredictedLesion]

    @property
    def boxes(self) -> Boxes:
        """``[N, 6]``, image voxels."""
        return np.array([lesion.box for lesion in self.lesions]) if self.lesions else empty_boxes(3)


def choose(
    predictions: Sequence[Prediction],
    which: Which,
    *,
    score_threshold: float = 0.0,
    max_per_case: int | None = None,
) -> list[SubmittedCase]:
    """Lesions of every case, cases in order of their ids; a case without lesions stays.

    Args:
        predictions: one per case.
        which: ``lesions`` that the tuned thresholds accept, or the ranked ``candidates``, which FROC and AP need.
        score_threshold: leave out what scores less.
        max_per_case: keep this many of the best; all when None.
    """
    cases = []
    for prediction in sorted(predictions, key=lambda each: each.case_id):
        listed: list[PredictedLesion] = getattr(prediction, which)
        kept = sorted(
            (each for each in listed if each.score >= score_threshold), key=lambda each: -each.score
        )
        cases.append(
            SubmittedCase(prediction.case_id, prediction.search_region, prediction.image, kept[:max_per_case])
        )
    return cases


def class_names(cases: Sequence[SubmittedCase]) -> dict[int, str]:
    """Class names by index, from the lesions themselves."""
    return dict(sorted({lesion.label: lesion.name for case in cases for lesion in case.lesions}.items()))


def axial_axis(image: Geometry) -> int:
    """The array axis of an image that runs from feet to head (or back), as near as one does."""
    cosines = image.matrix[2] / np.array(image.spacing)
    return int(np.abs(cosines).argmax())


def voxel_range(
    low: NDArray[np.float64], high: NDArray[np.float64], limit: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Voxels whose centres lie in ``low..high`` (edges), the middle one where none does; cut to ``0..limit``."""
    rounding = 1e-4  # boxes in files have four decimals
    first = np.ceil(low - 0.5 - rounding).astype(np.int64)
    end = np.ceil(high - 0.5 - rounding).astype(np.int64)
    middle = np.floor((low + high) / 2).astype(np.int64)
    none = end <= first
    first, end = np.where(none, middle, first), np.where(none, middle + 1, end)
    return np.clip(first, 0, limit), np.clip(end, 0, limit)
