"""CASE_boxes.json: the lesions found in one case, in the image's own grid and in millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nndet_psma.artifacts.results import Result
from nndet_psma.boxes.geometry import Geometry


@dataclass(frozen=True)
class SliceBox:
    """One slice of a lesion: a box one slice thick in the image's own voxels, its score and its votes."""

    box: tuple[float, ...]
    score: float
    votes: int


@dataclass(frozen=True)
class PredictedLesion:
    """One lesion.

    Attributes:
        score: in [0, 1].
        label: class index.
        name: class name.
        box: ``(z0, y0, x0, z1, y1, x1)`` voxel edges in the image file's own array order.
        centre_mm: LPS (x, y, z) of the box centre.
        size_mm: extent along the image's (z, y, x) axes.
        slices: its slice boxes.
    """

    score: float
    label: int
    name: str
    box: tuple[float, ...]
    centre_mm: tuple[float, float, float]
    size_mm: tuple[float, float, float]
    slices: list[SliceBox]


@dataclass(frozen=True)
class Prediction(Result):
    """Prediction of one case.

    Attributes:
        case_id: name.
        made_from: hash of weights, thresholds and image.
        search_region: "ctv", or "body" where no CTV was given.
        image: grid of the image file.
        examined: box that was searched, image voxels.
        lesions: what the tuned thresholds accept, best first.
        candidates: everything the filters leave without score threshold or vote count, ranked: what AP and FROC use.
    """

    schema: ClassVar[str] = "nndet_psma.prediction"
    suffix: ClassVar[str] = "_boxes.json"

    case_id: str
    made_from: str
    search_region: str
    image: Geometry
    examined: tuple[float, ...]
    lesions: list[PredictedLesion]
    candidates: list[PredictedLesion]

    def summary(self) -> dict[str, Any]:
        """Number of lesions, and the best score of any candidate."""
        return {
            "case_id": self.case_id,
            "search_region": self.search_region,
            "lesions": len(self.lesions),
            "best_score": max((candidate.score for candidate in self.candidates), default=0.0),
        }

    def told(self) -> str:
        """Number of lesions and candidates."""
        return f"{len(self.lesions)} lesions, {len(self.candidates)} candidates"
