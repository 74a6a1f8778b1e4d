"""FROC as LUNA16 defines it, from points and diameters in tables.

The rules are those of the challenge's published evaluation script:

* A candidate hits a finding when its distance to the centre is **less than** (``<``) half the diameter, or less than
  one radius given for all. A diameter below zero means unknown and is taken as 10 mm.
* A finding is found when any candidate hits it; the best score of these is the score of the hit. The others are
  neither true nor false positives. A candidate that hits two findings finds both.
* A candidate that hits no finding but one of the exclude list counts neither way; an excluded finding is never missed.
* A candidate that hits nothing is a false positive. Every scan counts in "per scan", also one without findings.
* Sensitivity between the points of the curve is interpolated linearly, after the last it stays level; the CPM is its
  mean at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per scan (see :mod:`nndet_psma.evaluation.detection.froc`).

This is the one place where matching is not :func:`~nndet_psma.evaluation.detection.matching.claim_greedy`: there a
second prediction on a lesion is a false positive and one prediction finds one lesion, so its sensitivity at a rate
is never higher. Two departures from the script: it stops when there is no false positive at all (here the curve
rises upright), and of candidates that tie at the N-th place it drops all, here the first in the file stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.detection.froc import FP_RATES, froc_curve
from nndet_psma.evaluation.detection.ranking import RankedDetections

UNKNOWN_DIAMETER_MM = 10.0


@dataclass(frozen=True)
class Marks:
    """Findings or candidates of many scans.

    Attributes:
        cases: ``[N]`` scan of each.
        centres: ``[N, 3]`` mm, the same axes for all.
        values: ``[N]`` diameters in mm (findings) or scores (candidates).
    """

    cases: Sequence[str]
    centres: NDArray[np.float64]
    values: NDArray[np.float64]

    @classmethod
    def none(cls) -> Marks:
        """No marks."""
        return cls([], np.zeros((0, 3)), np.zeros(0))

    def by_case(self) -> dict[str, NDArray[np.int64]]:
        """Scan to its rows, in order."""
        rows: dict[str, list[int]] = {}
        for row, case in enumerate(self.cases):
            rows.setdefault(case, []).append(row)
        return {case: np.array(each, dtype=np.int64) for case, each in rows.items()}


def luna_ranking(
    truth: Marks,
    candidates: Marks,
    cases: Sequence[str],
    *,
    excluded: Marks | None = None,
    radius_mm: float | None = None,
    max_per_case: int | None = None,
) -> RankedDetections:
    """Hits and false positives, best score first.

    Args:
        truth: findings that count.
        candidates: predictions.
        cases: distinct scans that count; marks of other scans are left out.
        excluded: findings that count neither way.
        radius_mm: radius of a hit for all findings; None takes half of each diameter.
        max_per_case: only so many best candidates of a scan; None for all.
    """
    excluded = Marks.none() if excluded is None else excluded
    tables = [(marks, marks.by_case()) for marks in (truth, excluded, candidates)]
    scores, hits, places, lesions = [], [], [], []
    for place, case in enumerate(cases):
        parts = [(marks, rows.get(case, np.zeros(0, dtype=np.int64))) for marks, rows in tables]
        found, spurious = _judge(parts[0], parts[1], parts[2], radius_mm, max_per_case)
        scores += [found, spurious]
        hits += [np.ones(len(found), dtype=bool), np.zeros(len(spurious), dtype=bool)]
        places += [np.full(len(found) + len(spurious), place)]
        lesions.append(len(parts[0][1]))
    all_scores = np.concatenate([np.zeros(0), *scores])
    order = np.argsort(-all_scores, kind="stable")
    return RankedDetections(
        all_scores[order],
        np.concatenate([np.zeros(0, dtype=bool), *hits])[order],
        np.concatenate([np.zeros(0, dtype=np.int64), *places])[order],
        np.array(lesions, dtype=np.int64),
    )


def luna_scores(ranked: RankedDetections) -> dict[str, object]:
    """``cpm``, ``sensitivity_at_fp`` by rate, and the counts of all candidates; null without findings."""
    curve = froc_curve(ranked)
    values = None if curve is None else curve.sensitivity_at().tolist()
    found = int(ranked.hits.sum())
    return {
        "cpm": None if values is None else float(np.mean(values)),
        "sensitivity_at_fp": {
            f"{rate:g}": None if values is None else values[place] for place, rate in enumerate(FP_RATES)
        },
        "n_cases": len(ranked.lesions_per_case),
        "n_lesions": int(ranked.lesions_per_case.sum()),
        "true_positives": found,
        "false_positives": len(ranked.hits) - found,
    }


_Part = tuple[Marks, NDArray[np.int64]]


def _judge(
    truth: _Part, excluded: _Part, candidates: _Part, radius_mm: float | None, most: int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of the hits (one per finding that is found) and of the false positives of one scan."""
    marks, rows = candidates
    rows = rows[np.argsort(-marks.values[rows], kind="stable")][:most]
    scores = marks.values[rows]
    hit = _within(marks.centres[rows], truth, radius_mm)
    best = np.where(hit, scores[:, None], -np.inf).max(axis=0, initial=-np.inf)
    spurious = ~hit.any(axis=1) & ~_within(marks.centres[rows], excluded, radius_mm).any(axis=1)
    return best[hit.any(axis=0)], scores[spurious]


def _within(points: NDArray[np.float64], findings: _Part, radius_mm: float | None) -> NDArray[np.bool_]:
    marks, rows = findings
    diameters = marks.values[rows]
    radii = np.where(diameters < 0, UNKNOWN_DIAMETER_MM, diameters) / 2
    if radius_mm is not None:
        radii = np.full(len(rows), radius_mm)
    steps = points[:, None] - marks.centres[rows][None]
    within: NDArray[np.bool_] = (steps**2).sum(axis=2) < radii**2
    return within
