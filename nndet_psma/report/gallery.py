"""Chosen cases in pictures: examples, the worst misses, the worst false alarms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nndet_psma.report.content import Shown
from nndet_psma.report.findings import CaseFindings, count_case, find
from nndet_psma.report.pictures import SHOWN_STEPS, take
from nndet_psma.report.removed import PlacedBox
from nndet_psma.report.shots import (
    Shot,
    best_hits,
    case_shot,
    spread_evenly,
    worst_false_alarms,
    worst_misses,
)
from nndet_psma.report.source import Raw, ReportSource
from nndet_psma.report.texts import STEPS, count, millilitres

EXTREMES = 4
_REASONS = 3


@dataclass(frozen=True)
class CasePictures:
    """Pictures by purpose.

    Attributes:
        example: the most confident hit; without hits the first miss or false alarm; None without cases.
        cases: chosen cases from worst to best.
        misses: largest lesions not found.
        false_alarms: accepted lesions that hit nothing, best score first.
    """

    example: Shown | None
    cases: list[Shown]
    misses: list[Shown]
    false_alarms: list[Shown]


def picture_cases(source: ReportSource, raw: Raw, max_cases: int) -> CasePictures:
    """Choose and draw; UserError where a file of a case cannot be read."""
    hit_iou = source.scores.slice_iou
    order = sorted(source.records, key=lambda record: count_case(record).quality)
    known = [record.case_id for record in order if record.case_id in source.predictions]
    found = {c: find(source.predictions[c], raw.labels(c), hit_iou) for c in known}
    everyone = list(found.values())
    chosen = [case_shot(everyone[i]) for i in spread_evenly(len(everyone), max_cases)]
    misses = worst_misses(everyone, EXTREMES)
    alarms = worst_false_alarms(everyone, EXTREMES)
    example = (best_hits(everyone, 1) or misses or alarms)[:1]
    shown = _draw([*example, *chosen, *misses, *alarms], raw, found)
    return CasePictures(
        shown[example[0]] if example else None,
        [shown[shot] for shot in chosen],
        [shown[shot] for shot in misses],
        [shown[shot] for shot in alarms],
    )


def _draw(shots: Sequence[Shot], raw: Raw, found: dict[str, CaseFindings]) -> dict[Shot, Shown]:
    """Every shot once; the images of a case are read once and held only while its shots are drawn."""
    drawn: dict[Shot, Shown] = {}
    for case_id in dict.fromkeys(shot.case_id for shot in shots):
        images, removed = raw.images(case_id), raw.removed(case_id)
        for shot in dict.fromkeys(shot for shot in shots if shot.case_id == case_id):
            pictures = take(shot, images, found[case_id], removed)
            lines = describe(shot, found[case_id], removed)
            drawn[shot] = Shown(f"Case {shot.title}", shot.verdict, shot.badge, pictures, lines)
    return drawn


def describe(shot: Shot, found: CaseFindings, removed: Sequence[PlacedBox]) -> list[str]:
    """Facts below the pictures: slice, lesions, boxes, what was removed and why, the whole case."""
    lines = [f"Axial slice {shot.slice} (0 is the lowest of {found.labels.grid.shape[0]})."]
    lines += _lesion_lines(shot, found)
    lines.append(_box_line(shot, found))
    lines += _removed_lines([box for box in removed if shot.slice in box.slices])
    total = len(found.labels.truth.boxes)
    false = len(found.false_alarms)
    whole = f"{len(found.found)} of {count(total, 'lesion')} found" if total else "no lesions"
    lines.append(f"Whole case: {whole}, {count(false, 'predicted lesion')} without any hit.")
    return lines


def _lesion_lines(shot: Shot, found: CaseFindings) -> list[str]:
    truth, spacing = found.labels.truth, found.labels.grid.spacing
    lines = []
    for place in np.flatnonzero(truth.slice_indices == shot.slice).tolist():
        row = int(truth.slice_lesions[place])
        y0, x0, y1, x1 = truth.slice_boxes[place].tolist()
        size = f"{(x1 - x0) * spacing[2]:.0f} × {(y1 - y0) * spacing[1]:.0f} mm"
        volume = "" if truth.volumes_mm3 is None else f", {millilitres(truth.volumes_mm3[row])} in all"
        verdict = "found" if row in found.found else "not found on any slice"
        focus = "The missed lesion" if row == shot.lesion else "True lesion"
        lines.append(f"{focus}: {size} on this slice{volume}; {verdict}.")
    return lines


def _box_line(shot: Shot, found: CaseFindings) -> str:
    boxes = found.boxes
    rows = np.flatnonzero(boxes.columns["slice"] == shot.slice).tolist()
    if not rows:
        return "No accepted box on this slice."
    parts = [
        f"{'hit' if boxes.columns['hit'][row] else 'false alarm'} with score {boxes.scores[row]:.2f} "
        f"({count(int(boxes.columns['votes'][row]), 'vote')})"
        for row in sorted(rows, key=lambda row: -boxes.scores[row])
    ]
    more = f" and {len(parts) - 4} more" if len(parts) > 4 else ""
    return f"Accepted here: {'; '.join(parts[:4])}{more}."


def _removed_lines(removed: Sequence[PlacedBox]) -> list[str]:
    if not removed:
        return []
    counts = Counter(box.step for box in removed)
    listed = ", ".join(f"{counts[step]} by {name}" for step, name in STEPS.items() if counts[step])
    lines = [f"Proposals removed here, over all windows: {listed}."]
    told: dict[tuple[str, str], float] = {}  # boxes with the same reason share a line, under their best score
    for box in removed:
        if box.step in SHOWN_STEPS:
            told.setdefault((box.step, box.reason), box.score)
    for (step, reason), score in list(told.items())[:_REASONS]:
        lines.append(f"Removed by {STEPS[step]} (score {score:.2f}): {reason}.")
    return lines
