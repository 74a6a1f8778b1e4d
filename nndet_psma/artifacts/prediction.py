"""CASE_boxes.json: the lesions found in one case, in the image's own grid and in millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from nndet_psma.artifacts.results import Result
from nndet_psma.boxes.box import box_sizes, reach_outside
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError


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

    @classmethod
    def parse(cls, content: dict[str, Any], source: Path | str) -> Self:
        """As any artefact, and every box must be one: other programs write this form, too.

        Raises:
            UserError: a score outside [0, 1], a label below 0, corners in another order, or a box outside the image.
        """
        found = super().parse(content, source)
        for key in ("lesions", "candidates"):
            for number, lesion in enumerate(getattr(found, key)):
                wrong = _fault(lesion, found.image.shape)
                if wrong is not None:
                    raise UserError(
                        f"{key}[{number}] has {wrong}",
                        file=source,
                        found=str(lesion.box),
                        expected="finite corners, lower before upper",
                    )
        return found

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


def _fault(lesion: PredictedLesion, shape: tuple[int, int, int]) -> str | None:
    if not 0 <= lesion.score <= 1 or lesion.label < 0:
        return f"score {lesion.score:g} and label {lesion.label}, which are not in [0, 1] and from 0 on"
    boxes = [lesion.box, *(part.box for part in lesion.slices)]
    if any(len(box) != 2 * len(shape) for box in boxes):
        return "a box of other than six numbers"
    corners = np.array(boxes)
    if (box_sizes(corners) <= 0).any():
        return "a box with an upper corner not above its lower one; the order is z0, y0, x0, z1, y1, x1"
    if reach_outside(corners, shape).any():
        return f"a box outside the image of {' x '.join(map(str, shape))} voxels (z, y, x)"
    return None


@dataclass(frozen=True)
class FusedPrediction(Prediction):
    """The candidates of a detector in the order that a second stage gives them; lesions are those it accepts.

    Scores, those of slices included, are fused ones; the detector's own stand in the :class:`Prediction` beside it.

    Attributes:
        detector: ``made_from`` of that prediction.
    """

    schema: ClassVar[str] = "nndet_psma.fused_prediction"
    suffix: ClassVar[str] = "_fused.json"

    detector: str
