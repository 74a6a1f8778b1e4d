"""The post-processing of one case, from what the detectors say to slice boxes and 3D lesions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nndet_psma.core.boxes import Boxes
from nndet_psma.core.detections import Detections
from nndet_psma.postproc.order import StepOrder, step_order
from nndet_psma.postproc.settings import PostprocSettings
from nndet_psma.postproc.step import FilterStep, Spacing

RawPredictions = Mapping[str, Sequence[Detections]]
"""Of one case: voter (HU window, ``m97_310``) -> one set of 2D boxes per fold, on the grid of the case's store.

Columns: ``slice``, ``zone_mm`` and ``hu_quantiles`` (see the two filters). A voter that sees nothing has folds without
boxes and lowers the score of what the others see; a voter without entry, or without folds, was not asked.
"""

CONSENSUS = "consensus"
"""Name of the voter of boxes that are removed behind the vote."""


@dataclass(frozen=True)
class RemovedBox:
    """A slice box that did not make it, for the report.

    Attributes:
        voter: name of the voter it came from; :data:`CONSENSUS` behind the vote.
        slice: axial index.
        box: (y0, x0, y1, x1) in voxels.
        score: after fusing the folds.
        step: label of the step: ``nms``, ``score``, ``zone``, ``hu``, ``size``, ``bagging``, or that of another one.
        reason: one sentence with the value and the threshold.
    """

    voter: str
    slice: int
    box: tuple[float, float, float, float]
    score: float
    step: str
    reason: str


@dataclass(frozen=True)
class CaseResult:
    """What is left of a case.

    Attributes:
        slices: 2D boxes, best score first, with the columns of the input and ``votes`` and ``lesion`` (row in
            ``lesions``).
        lesions: 3D boxes, see :func:`nndet_psma.postproc.linking.link_slices`.
        removed: rejected boxes, step by step; empty unless asked for. Boxes merged into another are not rejected.
    """

    slices: Detections
    lesions: Detections
    removed: list[RemovedBox]


def postprocess_case(
    raw: RawPredictions,
    settings: PostprocSettings,
    *,
    spacing: Spacing,
    record_removed: bool = False,
) -> CaseResult:
    """Take one case through the steps of ``settings`` in their order.

    By default: fuse folds, suppress, threshold, filter by zone, HU and size, let the voters vote, link slices.
    Suppression comes before the thresholds and filters, as in the paper, whose detector suppresses its own
    boxes. It also makes the order matter for nothing that is tuned: score threshold and filters then are
    masks on fixed boxes, and the joint sweep measures exactly what this function does.

    Voters that were not asked neither vote nor lower a score, and ``min_votes`` ends at the number of those that were.
    A single voter's boxes pass with one vote each.

    Args:
        raw: predictions of every voter and fold.
        settings: steps and thresholds.
        spacing: voxel size in mm (z, y, x).
        record_removed: keep an account of rejected boxes.

    Raises:
        ValueError: no voter was asked, or a column is missing.
        UserError: a step is unknown, or they stand in an impossible order.
    """
    order = step_order(settings.steps)
    log = _RemovalLog(record_removed, settings, spacing)
    voters = {name: _voter(name, parts, order, log) for name, parts in present_voters(raw).items()}
    slices, left_out = order.vote.vote(list(voters.values()), settings)
    if record_removed:
        names = list(voters)
        for voter, boxes, row, reason in left_out:
            log.add(names[voter], order.vote.label, boxes, row, reason)
    slices = log.filtered(CONSENSUS, slices, order.on_consensus)
    slices, lesions = order.link.link(slices, settings, spacing)
    return CaseResult(*_filter_lesions(slices, lesions, order, log), log.removed)


def present_voters(raw: RawPredictions) -> dict[str, Sequence[Detections]]:
    """The voters that were asked.

    Raises:
        ValueError: none was.
    """
    present = {name: parts for name, parts in raw.items() if len(parts)}
    if not present:
        raise ValueError(f"no voter was asked: predictions of {sorted(raw) or 'nobody'} without folds")
    return present


def voter_boxes(
    parts: Sequence[Detections], settings: PostprocSettings, spacing: Spacing, steps: Sequence[FilterStep]
) -> Detections:
    """One voter's folds fused and taken through ``steps``."""
    order = step_order(settings.steps)
    log = _RemovalLog(False, settings, spacing)
    filtered = [log.filtered("", part, order.on_folds) for part in parts]
    return log.filtered("", order.fuse.fuse(filtered, settings), steps)


def _voter(name: str, parts: Sequence[Detections], order: StepOrder, log: _RemovalLog) -> Detections:
    filtered = [log.filtered(name, part, order.on_folds) for part in parts]
    return log.filtered(name, order.fuse.fuse(filtered, log.settings), order.on_voters)


def _filter_lesions(
    slices: Detections, lesions: Detections, order: StepOrder, log: _RemovalLog
) -> tuple[Detections, Detections]:
    """Drop lesions with their slice boxes, and number the rest anew."""
    for step in order.on_lesions:
        keep = step.keep(lesions, log.settings, log.spacing)
        owner = slices.columns["lesion"]
        if log.on:
            for row in np.flatnonzero(~keep[owner]).tolist():
                reason = step.reason(lesions, int(owner[row]), log.settings, log.spacing)
                log.add(CONSENSUS, step.label, slices, row, f"lesion: {reason}")
        slices = slices.select(keep[owner])
        number = np.cumsum(keep) - 1
        slices = slices.with_columns(lesion=number[slices.columns["lesion"]].astype(np.int64))
        lesions = lesions.select(keep)
    return slices, lesions


class _RemovalLog:
    """Applies filters; collects :class:`RemovedBox` when switched on, and costs nothing otherwise."""

    def __init__(self, on: bool, settings: PostprocSettings, spacing: Spacing) -> None:
        self.on = on
        self.settings = settings
        self.spacing = spacing
        self.removed: list[RemovedBox] = []

    def filtered(self, voter: str, boxes: Detections, steps: Sequence[FilterStep]) -> Detections:
        """What the steps leave."""
        for step in steps:
            keep = step.keep(boxes, self.settings, self.spacing)
            if self.on:
                for row in np.flatnonzero(~keep).tolist():
                    reason = step.reason(boxes, row, self.settings, self.spacing)
                    self.add(voter, step.label, boxes, row, reason)
            boxes = boxes.select(keep)
        return boxes

    def add(self, voter: str, label: str, boxes: Detections, row: int, reason: str) -> None:
        """Record one slice box."""
        y0, x0, y1, x1 = _flat(boxes.boxes[row])
        position = int(boxes.columns["slice"][row])
        score = float(boxes.scores[row])
        self.removed.append(RemovedBox(voter, position, (y0, x0, y1, x1), score, label, reason))


def _flat(box: Boxes) -> list[float]:
    values: list[float] = box.tolist()
    return values
