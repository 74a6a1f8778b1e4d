"""The post-processing of one case, from what the detectors say to slice boxes and 3D lesions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.detections import Detections
from nndet_psma.postproc.bagging import check_votes, consensus
from nndet_psma.postproc.clustering import PartClusters, cluster_parts, nms_mask, weighted_box_clustering
from nndet_psma.postproc.hu_filter import hu_filter, quantile_index
from nndet_psma.postproc.linking import link_slices
from nndet_psma.postproc.settings import PostprocSettings
from nndet_psma.postproc.zone_filter import zone_filter

RawPredictions = Mapping[str, Sequence[Detections]]
"""Of one case: voter (HU window, ``m97_310``) -> one set of 2D boxes per fold, on the grid of the case's store.

Columns: ``slice``, ``zone_mm`` and ``hu_quantiles`` (see the two filters). Every voter has an entry; a voter that sees
nothing has folds without boxes.
"""


@dataclass(frozen=True)
class RemovedBox:
    """A slice box that did not make it, for the report.

    Attributes:
        voter: name of the voter it came from.
        slice: axial index.
        box: (y0, x0, y1, x1) in voxels.
        score: after fusing the folds.
        step: ``nms``, ``score``, ``zone``, ``hu`` or ``bagging``.
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
    spacing: tuple[float, float, float],
    record_removed: bool = False,
) -> CaseResult:
    """Fuse folds, suppress, threshold, filter by zone and HU, let the voters vote, link slices.

    Suppression comes before the thresholds and filters, as in the paper, whose detector suppresses its own
    boxes. It also makes the order matter for nothing that is tuned: score threshold and filters then are
    masks on fixed boxes, and :func:`nndet_psma.postproc.sweep.sweep` measures exactly what this function does.
    Fusing needs two folds and voting two voters; a single voter's boxes pass with one vote each.

    Args:
        raw: predictions of every voter and fold.
        settings: all thresholds.
        spacing: voxel size in mm (z, y, x).
        record_removed: keep an account of rejected boxes.

    Raises:
        ValueError: no voters, a voter without folds, fewer voters than ``min_votes``, or a column is missing.
    """
    check_votes(settings.min_votes, len(raw))
    log = _RemovalLog(record_removed)
    voters = {}
    for voter, folds in raw.items():
        boxes = fuse_folds(folds, settings)
        for step in _voter_steps(settings):
            keep = step.keep(boxes)
            log.add(voter, step, boxes, ~keep)
            boxes = boxes.select(keep)
        voters[voter] = boxes
    clusters = vote(list(voters.values()), settings.vote_iou)
    log.add_outvoted(list(voters), clusters, settings.min_votes)
    slices, lesions = link_slices(
        consensus(clusters, settings.min_votes),
        link_iou=settings.link_iou,
        max_gap=settings.link_gap,
        spacing=spacing,
    )
    return CaseResult(slices, lesions, log.removed)


def fuse_folds(folds: Sequence[Detections], settings: PostprocSettings) -> Detections:
    """One voter's boxes: its folds fused at ``fold_iou``, best score first; a single fold's boxes stay as they are.

    Raises:
        ValueError: no folds, or their columns differ.
    """
    alone = len(folds) == 1
    fused = folds[0].sorted_by_score() if alone else weighted_box_clustering(folds, iou=settings.fold_iou)
    if len(fused):
        return fused
    # folds without boxes need not know the columns
    return Detections.empty(2, {"slice": np.zeros(0, dtype=np.int64), **fused.columns})


def vote(voters: Sequence[Detections], vote_iou: float) -> PartClusters:
    """Clusters of agreeing boxes; a single voter's boxes stay apart, each with its own vote."""
    if len(voters) > 1:
        return cluster_parts(voters, vote_iou)
    boxes = voters[0].sorted_by_score()
    each = np.arange(len(boxes))
    return PartClusters(boxes, np.zeros_like(each), each, np.ones_like(each), 1)


@dataclass(frozen=True)
class _Step:
    """One mask on a voter's boxes, and the sentence for a box it rejects (given its row)."""

    name: str
    keep: Callable[[Detections], NDArray[np.bool_]]
    reason: Callable[[Detections, int], str]


def _voter_steps(settings: PostprocSettings) -> list[_Step]:
    quantile = quantile_index(settings.hu_quantile)
    return [
        _Step(
            "nms",
            lambda boxes: nms_mask(boxes, settings.nms_iou),
            lambda boxes, row: f"overlaps a better box with IoU above {settings.nms_iou:g}",
        ),
        _Step(
            "score",
            lambda boxes: boxes.scores >= settings.score_threshold,
            lambda boxes, row: f"score {boxes.scores[row]:.3g} below {settings.score_threshold:g}",
        ),
        _Step(
            "zone",
            lambda boxes: zone_filter(boxes, settings.zone_mm),
            lambda boxes, row: (
                f"centre {boxes.columns['zone_mm'][row]:.1f} mm outside the CTV, at most {settings.zone_mm:.1f} mm kept"
            ),
        ),
        _Step(
            "hu",
            lambda boxes: hu_filter(boxes, settings.hu_threshold, settings.hu_quantile),
            lambda boxes, row: (
                f"{boxes.columns['hu_quantiles'][row, quantile]:.0f} HU at quantile {settings.hu_quantile:g}, "
                f"at most {settings.hu_threshold:g} HU kept"
            ),
        ),
    ]


class _RemovalLog:
    """Collects :class:`RemovedBox` when switched on, and costs nothing otherwise."""

    def __init__(self, on: bool) -> None:
        self.on = on
        self.removed: list[RemovedBox] = []

    def add(self, voter: str, step: _Step, boxes: Detections, rejected: NDArray[np.bool_]) -> None:
        if self.on:
            for row in np.flatnonzero(rejected).tolist():
                self._append(voter, step.name, boxes, row, step.reason(boxes, row))

    def add_outvoted(self, names: list[str], clusters: PartClusters, min_votes: int) -> None:
        if not self.on:
            return
        votes = np.bincount(clusters.cluster[clusters.rank > 0])[clusters.cluster]
        for row in range(len(clusters.members)):
            if votes[row] < min_votes:
                reason = f"{votes[row]} of {clusters.num_parts} voters agree, {min_votes} needed"
            elif clusters.rank[row] == 0:
                reason = "the same voter has a better box in the same consensus"
            else:
                continue
            self._append(names[clusters.part[row]], "bagging", clusters.members, row, reason)

    def _append(self, voter: str, step: str, boxes: Detections, row: int, reason: str) -> None:
        y0, x0, y1, x1 = boxes.boxes[row].tolist()
        position = int(boxes.columns["slice"][row])
        self.removed.append(
            RemovedBox(voter, position, (y0, x0, y1, x1), float(boxes.scores[row]), step, reason)
        )
