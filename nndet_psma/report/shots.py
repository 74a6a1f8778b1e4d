"""Which slice of which case is worth a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nndet_psma.report.findings import CaseFindings

Rectangle = tuple[float, float, float, float]


@dataclass(frozen=True)
class Shot:
    """One picture to take.

    Attributes:
        case_id: case.
        slice: axial index on the canonical grid.
        focus: (y0, x0, y1, x1) what the close-up shows.
        title: heading.
        verdict: "hit", "miss", "false" or "none".
        badge: the verdict in words.
        lesion: row of the truth in focus, None without.
        score: of the box in focus, None without.
    """

    case_id: str
    slice: int
    focus: Rectangle
    title: str
    verdict: str
    badge: str
    lesion: int | None = None
    score: float | None = None


def case_shot(found: CaseFindings) -> Shot:
    """The best hit; without one the largest missed lesion, then the best false alarm, then the middle."""
    total, alarms = len(found.labels.truth.boxes), len(found.false_alarms)
    badge = f"{len(found.found)} of {total} found" if total else f"no lesion, {alarms or 'no'} false"
    verdict = ("miss" if found.missed else "hit") if total else ("false" if alarms else "none")
    hits = best_hits([found], 1)
    if hits:
        return replace(hits[0], verdict=verdict, badge=badge)
    if found.missed:
        return replace(_missed_shot(found, found.missed[0]), badge=badge)
    if found.false_alarms:
        return replace(_false_shot(found, found.false_alarms[0]), badge=badge)
    z0, y0, x0, z1, y1, x1 = found.examined
    middle = int(np.clip((z0 + z1) // 2, 0, found.labels.grid.shape[0] - 1))
    return Shot(found.case_id, middle, (y0, x0, y1, x1), found.case_id, verdict, badge)


def best_hits(cases: Sequence[CaseFindings], count: int) -> list[Shot]:
    """The slice boxes with the highest scores that hit, one per case."""
    shots = []
    for found in cases:
        rows = np.flatnonzero(found.boxes.columns["hit"])
        if len(rows):
            row = int(rows[np.argmax(found.boxes.scores[rows])])
            shots.append(_box_shot(found, row, "hit", "hit"))
    return sorted(shots, key=lambda shot: -(shot.score or 0.0))[:count]


def worst_misses(cases: Sequence[CaseFindings], count: int) -> list[Shot]:
    """The largest lesions that were not found, over all cases."""
    missed = [(found, row) for found in cases for row in found.missed]
    missed.sort(key=lambda each: -_volume(*each))
    return [_missed_shot(found, row) for found, row in missed[:count]]


def worst_false_alarms(cases: Sequence[CaseFindings], count: int) -> list[Shot]:
    """The predicted lesions with the highest scores that hit nothing, over all cases."""
    shots = [_false_shot(found, lesion) for found in cases for lesion in found.false_alarms]
    return sorted(shots, key=lambda shot: -(shot.score or 0.0))[:count]


def spread_evenly(amount: int, count: int) -> list[int]:
    """``count`` of ``amount`` positions, first and last among them, evenly spread."""
    if count >= amount:
        return list(range(amount))
    if count <= 0:
        return []
    return sorted({round(position) for position in np.linspace(0, amount - 1, count)})


def _missed_shot(found: CaseFindings, row: int) -> Shot:
    truth = found.labels.truth
    places = np.flatnonzero(truth.slice_lesions == row)
    boxes = truth.slice_boxes[places]
    largest = int(np.argmax((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])))
    y0, x0, y1, x1 = boxes[largest].tolist()
    z = int(truth.slice_indices[places[largest]])
    return Shot(found.case_id, z, (y0, x0, y1, x1), found.case_id, "miss", "lesion missed", lesion=row)


def _false_shot(found: CaseFindings, lesion: int) -> Shot:
    rows = np.flatnonzero(found.boxes.columns["lesion"] == lesion)
    row = int(rows[np.argmax(found.boxes.scores[rows])])
    return _box_shot(found, row, "false", "false alarm")


def _box_shot(found: CaseFindings, row: int, verdict: str, badge: str) -> Shot:
    y0, x0, y1, x1 = found.boxes.boxes[row].tolist()
    z = int(found.boxes.columns["slice"][row])
    score = float(found.boxes.scores[row])
    return Shot(found.case_id, z, (y0, x0, y1, x1), found.case_id, verdict, badge, score=score)


def _volume(found: CaseFindings, row: int) -> float:
    volumes = found.labels.truth.volumes_mm3
    return 0.0 if volumes is None else float(volumes[row])
