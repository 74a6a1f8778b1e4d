"""The post-processing of one case, from what the detectors say to slice boxes and 3D lesions.

Detectors on slices give slice boxes, which the last step links into lesions; detectors on volumes give lesions, which
the last step cuts into slice boxes. Every step between takes either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nndet_psma.boxes.detections import Detections
from nndet_psma.postproc.steps.order import StepOrder, step_order
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.steps.step import FilterStep, Spacing

RawPredictions = Mapping[str, Sequence[Detections]]
"""Of one case: voter (HU window, ``m97_310``) -> one set of boxes per fold, on the grid of the case's store.

Boxes are 2D with column ``slice``, or 3D. Further columns: ``zone_mm`` and ``hu_quantiles`` (see the two filters). A
voter that sees nothing has folds without boxes and lowers the score of what the others see; a voter without entry, or
without folds, was not asked.
"""

CONSENSUS = "consensus"
"""Name of the voter of boxes that are removed behind the vote."""


@dataclass(frozen=True)
class RemovedBox:
    """A box that did not make it, for the report.

    Attributes:
        voter: name of the voter it came from; :data:`CONSENSUS` behind the vote.
        slice: axial index; the middle slice of a 3D box.
        box: (y0, x0, y1, x1) in voxels.
        score: after fusing the folds.
        step: label of the step: ``nms``, ``score``, ``zone``, ``hu``, ``size``, ``bagging``, or that of another one.
        reason: one sentence with the value and the threshold.
        depth: (z0, z1) of a 3D box; ``None`` of a slice box.
    """

    voter: str
    slice: int
    box: tuple[float, float, float, float]
    score: float
    step: str
    reason: str
    depth: tuple[float, float] | None = None

    @property
    def edges(self) -> tuple[float, float, float, float, float, float]:
        """3D box (z0, y0, x0, z1, y1, x1) in voxels; a slice box is one slice thick."""
        z0, z1 = (self.slice, self.slice + 1) if self.depth is None else self.depth
        return z0, *self.box[:2], z1, *self.box[2:]


@dataclass(frozen=True)
class CaseResult:
    """What is left of a case.

    Attributes:
        slices: 2D boxes, best score first, with the columns of the input and ``votes`` and ``lesion`` (row in
            ``lesions``).
        lesions: 3D boxes, see :func:`nndet_psma.postproc.steps.linking.link_slices` and
            :func:`nndet_psma.postproc.steps.box_slicing.slice_lesions`.
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

    By default: fuse folds, suppress, threshold, filter by zone, HU and size, let the voters vote, link slices
    (:data:`nndet_psma.postproc.steps.settings.DEFAULT_STEPS`; for boxes in 3D ``VOLUME_STEPS``).
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
        UserError: a step is unknown, they stand in an impossible order, or they take boxes of another dimension.
    """
    order = step_order(settings.steps)
    order.check_boxes(part for parts in raw.values() for part in parts)
    log = _RemovalLog(record_removed, settings, spacing)
    asked = present_voters(raw)
    voters = {name: _voter(name, parts, order, order.on_voters, log) for name, parts in asked.items()}
    voted, left_out = order.vote.vote(list(voters.values()), settings)
    if record_removed:
        names = list(voters)
        for voter, boxes, row, reason in left_out:
            log.add(names[voter], order.vote.label, boxes, row, reason)
    voted = log.filtered(CONSENSUS, voted, order.on_consensus)
    slices, lesions = order.link.link(voted, settings, spacing)
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
    order.check_boxes(parts)
    return _voter("", parts, order, steps, _RemovalLog(False, settings, spacing))


def _voter(
    name: str, parts: Sequence[Detections], order: StepOrder, steps: Sequence[FilterStep], log: _RemovalLog
) -> Detections:
    filtered = [log.filtered(name, part, order.on_folds) for part in parts]
    fused = order.fuse.fuse(filtered, log.settings)
    if not len(fused):  # folds without boxes need not know dimension and columns
        known = {"slice": np.zeros(0, dtype=np.int64)} if order.dim == 2 else {}
        fused = Detections.empty(order.dim, {**known, **fused.columns})
    return log.filtered(name, fused, steps)


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
        """Record one box."""
        sides: list[float] = boxes.boxes[row].tolist()
        depth = None
        if boxes.dim == 3:
            depth = (sides[0], sides[3])
            sides, position = [*sides[1:3], *sides[4:]], int(np.floor((depth[0] + depth[1]) / 2))
        else:
            position = int(boxes.columns["slice"][row])
        y0, x0, y1, x1 = sides
        score = float(boxes.scores[row])
        self.removed.append(RemovedBox(voter, position, (y0, x0, y1, x1), score, label, reason, depth))
