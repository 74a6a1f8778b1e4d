"""Chosen cases in pictures: examples, the worst misses, the worst false alarms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nndet_psma.report.case_images import CaseImages
from nndet_psma.report.charts.pictures import HIDDEN_STEPS, take
from nndet_psma.report.findings import CaseFindings, count_case, find
from nndet_psma.report.page.content import Shown
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
        num_misses: all missed lesions, also those without a picture.
        num_false_alarms: all accepted lesions that hit nothing.
    """

    example: Shown | None
    cases: list[Shown]
    misses: list[Shown]
    false_alarms: list[Shown]
    num_misses: int = 0
    num_false_alarms: int = 0


def picture_cases(source: ReportSource, raw: Raw, max_cases: int, worst: int = EXTREMES) -> CasePictures:
    """Choose and draw; UserError where a file of a case cannot be read."""
    hit_iou = source.scores.slice_iou
    order = sorted(source.records, key=lambda record: count_case(record).quality)
    known = [record.case_id for record in order if record.case_id in source.predictions]
    found = {c: find(source.predictions[c], raw.labels(c), hit_iou) for c in known}
    everyone = list(found.values())
    chosen = [case_shot(everyone[i]) for i in spread_evenly(len(everyone), max_cases)]
    misses = worst_misses(everyone, worst)
    alarms = worst_false_alarms(everyone, worst)
    example = (best_hits(everyone, 1) or worst_misses(everyone, 1) or worst_false_alarms(everyone, 1))[:1]
    shown = _draw([*example, *chosen, *misses, *alarms], raw, found)
    return CasePictures(
        shown[example[0]] if example else None,
        [shown[shot] for shot in chosen],
        [shown[shot] for shot in misses],
        [shown[shot] for shot in alarms],
        sum(len(each.missed) for each in everyone),
        sum(len(each.false_alarms) for each in everyone),
    )


def _draw(shots: Sequence[Shot], raw: Raw, found: dict[str, CaseFindings]) -> dict[Shot, Shown]:
    """Every shot once; the images of a case are read once and held only while its shots are drawn."""
    drawn: dict[Shot, Shown] = {}
    for case_id in dict.fromkeys(shot.case_id for shot in shots):
        images, removed = raw.images(case_id), raw.removed(case_id)
        for shot in dict.fromkeys(shot for shot in shots if shot.case_id == case_id):
            pictures = take(shot, images, found[case_id], removed)
            lines = describe(shot, images, found[case_id], removed)
            drawn[shot] = Shown(f"Case {shot.title}", shot.verdict, shot.badge, pictures, lines)
    return drawn


def describe(shot: Shot, images: CaseImages, found: CaseFindings, removed: Sequence[PlacedBox]) -> list[str]:
    """Facts below the pictures: slice, lesions, boxes, what was removed and why, the whole case."""
    slices = found.labels.grid.shape[0]
    lines = [
        f"Axial slice {shot.slice + 1} of {slices} from the feet, {slices - shot.slice} from the head; "
        f"{_shown_as(images)}."
    ]
    lines += _lesion_lines(shot, found)
    lines.append(_box_line(shot, found))
    if shot.lesion is not None:
        lines.append(_why_missed(shot.lesion, found, removed))
    if shot.verdict == "false":
        lines += _false_lines(shot, found)
    lines += _removed_lines([box for box in removed if shot.slice in box.slices])
    total = len(found.labels.truth.boxes)
    false = len(found.false_alarms)
    whole = f"{len(found.found)} of {count(total, 'lesion')} found" if total else "no lesions"
    lines.append(f"Whole case: {whole}, {count(false, 'predicted lesion')} without any hit.")
    return lines


def _shown_as(images: CaseImages) -> str:
    lower, upper = (f"{value:.0f}".replace("-", "−") for value in images.window)
    return (
        f"soft-tissue window, {lower} to {upper} HU" if images.is_ct else f"values {lower} to {upper} shown"
    )


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


def _why_missed(lesion: int, found: CaseFindings, removed: Sequence[PlacedBox]) -> str:
    """The best proposal that met the lesion, on any slice, and the step that removed it."""
    met = [box for box in removed if _meets(box, lesion, found)]
    if not met:
        return "Why missed: no removed proposal meets this lesion on any slice."
    best = next((box for box in met if box.step != "nms"), met[0])
    counts = Counter(STEPS.get(box.step, box.step) for box in met)
    listed = ", ".join(f"{amount} by {name}" for name, amount in counts.most_common())
    return (
        f"Why missed: {count(len(met), 'proposal')} on its slices met it and went ({listed}); the best, with score "
        f"{best.score:.2f}: {best.reason}."
    )


def _meets(box: PlacedBox, lesion: int, found: CaseFindings) -> bool:
    """Whether a removed box shares area with the lesion on a slice."""
    truth = found.labels.truth
    rows = (truth.slice_lesions == lesion) & np.isin(truth.slice_indices, box.slices)
    y0, x0, y1, x1 = box.box
    t = truth.slice_boxes[rows]
    return bool(((t[:, 0] < y1) & (y0 < t[:, 2]) & (t[:, 1] < x1) & (x0 < t[:, 3])).any())


def _false_lines(shot: Shot, found: CaseFindings) -> list[str]:
    """Size of the false box, and how far the nearest true lesion of its slice is."""
    truth, spacing = found.labels.truth, found.labels.grid.spacing
    y0, x0, y1, x1 = shot.focus
    size = f"{(x1 - x0) * spacing[2]:.0f} × {(y1 - y0) * spacing[1]:.0f} mm"
    boxes = truth.slice_boxes[truth.slice_indices == shot.slice]
    if not len(boxes):
        return [f"The false box: {size}; there is no true lesion on this slice."]
    gap_y = np.maximum(0, np.maximum(boxes[:, 0] - y1, y0 - boxes[:, 2])) * spacing[1]
    gap_x = np.maximum(0, np.maximum(boxes[:, 1] - x1, x0 - boxes[:, 3])) * spacing[2]
    gap = float(np.hypot(gap_y, gap_x).min())
    near = f"lies {gap:.0f} mm away" if gap else "touches it, but overlaps too little"
    return [f"The false box: {size}; the nearest true lesion of this slice {near}."]


def _removed_lines(removed: Sequence[PlacedBox]) -> list[str]:
    if not removed:
        return []
    counts = Counter(box.step for box in removed)
    steps = [*STEPS, *sorted(set(counts) - set(STEPS))]
    listed = ", ".join(f"{counts[step]} by {STEPS.get(step, step)}" for step in steps if counts[step])
    lines = [f"Proposals removed on this slice, over all windows: {listed}."]
    told: dict[tuple[str, str], float] = {}  # boxes with the same reason share a line, under their best score
    for box in removed:
        if box.step not in HIDDEN_STEPS:
            told.setdefault((box.step, box.reason), box.score)
    for (step, reason), score in list(told.items())[:_REASONS]:
        lines.append(f"Removed on this slice by {STEPS.get(step, step)} (score {score:.2f}): {reason}.")
    return lines
