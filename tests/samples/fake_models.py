"""Detectors without weights, and raw predictions made by hand."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from nndet_psma.artifacts.raw_predictions import RawMeta, RawPrediction
from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.geometry import Geometry


class FixedBoxes(nn.Module):
    """Says the same of every slice: boxes (x0, y0, x1, y1) in detector pixels. Keeps what it was shown."""

    def __init__(self, boxes: list[list[float]], scores: list[float] | None = None) -> None:
        super().__init__()
        self.boxes, self.scores = boxes, scores or [0.9 - 0.1 * i for i in range(len(boxes))]
        self.seen: list[Tensor] = []

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        self.seen += images
        return [
            {
                "boxes": torch.tensor(self.boxes).reshape(-1, 4),
                "scores": torch.tensor(self.scores),
                "labels": torch.ones(len(self.boxes), dtype=torch.int64),
            }
            for _ in images
        ]


class BrightSpots(nn.Module):
    """Boxes round what is brighter than ``threshold`` in the centre slice: depends on the content alone."""

    def __init__(self, threshold: float = 0.7) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        return [self._find(image[image.shape[0] // 2].numpy()) for image in images]

    def _find(self, plane: np.ndarray) -> dict[str, Tensor]:
        spots, _ = ndimage.label(plane > self.threshold)
        found = [
            [c.start, r.start, c.stop, r.stop]
            for r, c in ndimage.find_objects(spots)
            if min(r.stop - r.start, c.stop - c.start) >= 3
        ]
        return {
            "boxes": torch.tensor(found, dtype=torch.float32).reshape(-1, 4),
            "scores": torch.full((len(found),), 0.9),
            "labels": torch.ones(len(found), dtype=torch.int64),
        }


def boxes_2d(rows: list[tuple[int, float, float, float, float, float]]) -> Detections:
    """Rows (slice, y0, x0, y1, x1, score) with zone 0 mm and unknown HU."""
    if not rows:
        return Detections.empty(2)
    return Detections.build(
        [row[1:5] for row in rows],
        [row[5] for row in rows],
        dim=2,
        slice=np.array([row[0] for row in rows]),
        zone_mm=np.zeros(len(rows)),
        hu_quantiles=np.full((len(rows), 10), np.nan, dtype=np.float32),
    )


def raw_of(
    voters: dict[str, list[Detections]],
    store: Geometry,
    image: Geometry | None = None,
    case_id: str = "case_0",
    examined: tuple[float, ...] | None = None,
) -> RawPrediction:
    whole = (0.0, 0.0, 0.0, *(float(n) for n in store.shape))
    parts = {name: len(each) for name, each in voters.items()}
    return RawPrediction(
        RawMeta(case_id, "made", "ctv", store, image or store, examined or whole, parts), voters
    )
