"""Matching of points in tables: one prediction finds at most one point of the truth, within a radius."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.detection.matching import claim_at_each


@dataclass(frozen=True)
class PointSet:
    """Points of many cases.

    Attributes:
        cases: ``[N]`` case of each.
        places: ``[N, dim]`` coordinates, the unit of the radius.
        scores: ``[N]`` of predictions; None without.
    """

    cases: Sequence[str]
    places: NDArray[np.float64]
    scores: NDArray[np.float64] | None = None


def score_points(truth: PointSet, predictions: PointSet, radius: float) -> dict[str, int]:
    """True positives, false positives and false negatives.

    The rule of :mod:`nndet_psma.evaluation.detection.matching` with the distance as criterion: a hit lies **at most**
    (``<=``) ``radius`` away. Predictions choose best score first, equal scores in the order given; without scores the
    one that is nearest to any point of the truth chooses first.
    """
    cases = list(dict.fromkeys([*truth.cases, *predictions.cases]))
    there, here = _rows(truth, cases), _rows(predictions, cases)
    hits = 0
    for case in cases:
        scores = None if predictions.scores is None else predictions.scores[here[case]]
        hits += _hits(truth.places[there[case]], predictions.places[here[case]], scores, radius)
    return {"tp": hits, "fp": len(predictions.cases) - hits, "fn": len(truth.cases) - hits}


def _hits(
    truth: NDArray[np.float64],
    found: NDArray[np.float64],
    scores: NDArray[np.float64] | None,
    radius: float,
) -> int:
    steps = found[:, None] - truth[None]
    distances = np.sqrt((steps**2).sum(axis=2))
    if scores is None:
        scores = -distances.min(axis=1, initial=np.inf)
    return int((claim_at_each(-distances, scores, [-radius]) >= 0).sum())


def _rows(points: PointSet, cases: Sequence[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {case: [] for case in cases}
    for row, case in enumerate(points.cases):
        rows[case].append(row)
    return rows
