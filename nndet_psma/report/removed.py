"""Boxes that the post-processing removed, brought onto the grid that pictures are drawn on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nndet_psma.artifacts.raw_predictions import RawPrediction
from nndet_psma.boxes.box import Boxes
from nndet_psma.boxes.geometry import Geometry, map_boxes
from nndet_psma.postproc.steps.box_slicing import covered_centres
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.steps.steps import postprocess_case


@dataclass(frozen=True)
class PlacedBox:
    """A removed box.

    Attributes:
        slices: axial slices it lies on.
        box: (y0, x0, y1, x1) voxel edges.
        score: after fusing the folds.
        step: the step that removed it, as in :class:`nndet_psma.postproc.steps.steps.RemovedBox`.
        reason: one sentence.
        voter: the window that proposed it.
    """

    slices: tuple[int, ...]
    box: tuple[float, ...]
    score: float
    step: str
    reason: str
    voter: str


def removed_boxes(
    parts: Sequence[RawPrediction], settings: PostprocSettings, grid: Geometry
) -> list[PlacedBox]:
    """Removed boxes of one case, best score first.

    Args:
        parts: raw predictions of the case (a validation case has one).
        settings: as they were used; votes are capped at the number of voters, as in prediction.
        grid: canonical grid of the case.
    """
    placed: list[PlacedBox] = []
    for raw in parts:
        capped = replace(settings, min_votes=min(settings.min_votes, len(raw.voters)))
        result = postprocess_case(raw.voters, capped, spacing=raw.meta.store.spacing, record_removed=True)
        if not result.removed:
            continue
        edges = np.array([box.edges for box in result.removed])
        for box, gone in zip(map_boxes(edges, raw.meta.store, grid), result.removed, strict=True):
            flat = tuple(float(v) for v in box[[1, 2, 4, 5]])
            slices = covered_slices(box, grid.shape[0])
            placed.append(PlacedBox(slices, flat, gone.score, gone.step, gone.reason, gone.voter))
    return sorted(placed, key=lambda each: -each.score)


def covered_slices(box: Boxes, depth: int) -> tuple[int, ...]:
    """Slices whose centre a 3D box ``[6]`` covers; the nearest one where it covers none, or lies beyond the image."""
    begin, end = covered_centres(box[0], box[3])
    return tuple(sorted({min(max(z, 0), depth - 1) for z in range(int(begin), int(end))}))
