"""Boxes that mean the same thing: suppression, and fusion of several sets of predictions by score.

Everything here is one greedy pass: boxes are visited best score first; a box that no better box has claimed
becomes a *seed* and claims the unclaimed boxes that overlap it. Only boxes of the same label, and in 2D of the same
slice, compete. **Ties:** of equal scores the earlier part goes first, within a part the earlier row.

A consequence that :mod:`nndet_psma.postproc.sweep.sweep` relies on: a box is claimed by better boxes only, so
dropping all boxes below some score changes nothing among the remaining ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.box import Boxes, box_volumes
from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.overlaps import overlapping_pairs


def nms(detections: Detections, iou: float) -> Detections:
    """Non-maximum suppression: drop boxes whose IoU with a better kept box is above ``iou``.

    Args:
        detections: 2D with column ``slice``, or 3D.
        iou: in [0, 1]; exclusive, as in torchvision, so that 1 switches suppression off.

    Returns:
        The kept boxes unchanged, best score first.

    Raises:
        ValueError: 2D boxes without the column ``slice``.
    """
    return detections.select(nms_mask(detections, iou)).sorted_by_score()


def nms_mask(detections: Detections, iou: float) -> NDArray[np.bool_]:
    """Which rows ``[N]`` survive :func:`nms`."""
    seeds = greedy_seeds(detections, iou, inclusive=False)
    kept: NDArray[np.bool_] = seeds == np.arange(len(detections))
    return kept


Missing = Literal["zero", "ignore", "overlap"]
"""What a part without the box does to a fused score, see :func:`weighted_box_clustering`."""


def weighted_box_clustering(
    parts: Sequence[Detections], *, iou: float, missing: Missing = "zero"
) -> Detections:
    """Fuse what several models (the folds of one voter) predict for the same image.

    In each cluster (IoU with its seed >= ``iou``) every part has one say, that of its best box there.
    Fused box: mean of those boxes weighted by score. Fused score: sum of their scores / number of
    parts (``zero``: a part without the box counts 0) or / number of parts that have it (``ignore``). ``overlap`` is
    nnDetection's weighting: boxes count by their IoU with the seed besides, and a missing part has the mean weight of
    those that are there: sum of score x IoU / (sum of IoU x parts / parts that have it). Label and further
    columns: those of the seed. One part alone is therefore suppressed at ``iou`` and otherwise unchanged.

    Args:
        parts: at least one; parts with boxes need the same columns; 2D ones the column ``slice``.
        iou: in (0, 1], inclusive.
        missing: what a part without the box does to the score.

    Returns:
        One box per cluster, best fused score first (ties: the better seed first).

    Raises:
        ValueError: no parts, different columns, or 2D boxes without ``slice``.
    """
    clusters = cluster_parts(parts, iou)
    if missing == "overlap":
        return clusters.fused_by_overlap().sorted_by_score()
    fused, votes = clusters.fused()
    if missing == "ignore":
        fused = replace(fused, scores=fused.scores * clusters.num_parts / votes)
    return fused.sorted_by_score()


@dataclass(frozen=True)
class PartClusters:
    """The boxes of several parts, clustered.

    Attributes:
        members: boxes of all parts, best score first.
        part: ``[N]`` index of the part of each box.
        cluster: ``[N]`` index of its cluster; cluster 0 has the best seed.
        rank: ``[N]`` 1 for the seed, 2 for the best box of the second-best part in the cluster, and so on; 0 for a
            box whose part has a better one in the cluster: it has no say.
        num_parts: parts given, with or without boxes.
    """

    members: Detections
    part: NDArray[np.int64]
    cluster: NDArray[np.int64]
    rank: NDArray[np.int64]
    num_parts: int

    def votes(self) -> NDArray[np.int64]:
        """Rows of ``members`` that have a say, ``[V]``, cluster by cluster and by rank."""
        rows = np.flatnonzero(self.rank)
        return rows[np.lexsort((self.rank[rows], self.cluster[rows]))]

    def running_consensus(self) -> tuple[Boxes, NDArray[np.float64]]:
        """Fused box ``[V, 2 * dim]`` and score ``[V]`` of each vote together with the better votes of its cluster.

        The last vote of a cluster hence carries the fusion of the whole cluster, and an earlier one what the
        fusion would be had the worse boxes been dropped.
        """
        rows = self.votes()
        at = self.cluster[rows], self.rank[rows] - 1
        table = (int(self.cluster.max(initial=-1)) + 1, self.num_parts)
        seeds = self.members.boxes[rows[at[1] == 0]]
        weights = np.zeros(table)
        weights[at] = self.members.scores[rows]
        # Offsets from the seed: the mean of identical boxes is then exactly that box, and zero scores are harmless.
        offsets = np.zeros((*table, self.members.boxes.shape[1]))
        offsets[at] = self.members.boxes[rows] - seeds[at[0]]
        moved = np.cumsum(offsets * weights[..., None], axis=1)[at]
        total = np.cumsum(weights, axis=1)[at]
        shift = np.divide(moved, total[:, None], out=np.zeros_like(moved), where=total[:, None] > 0)
        return seeds[at[0]] + shift, total / self.num_parts

    def fused(self) -> tuple[Detections, NDArray[np.int64]]:
        """One box per cluster, best seed first, and how many parts have a say in it."""
        rows = self.votes()
        boxes, scores = self.running_consensus()
        last = np.append(self.rank[rows][1:] == 1, True)[: len(rows)]
        seeds = self.members.select(rows[self.rank[rows] == 1])
        return Detections(boxes[last], scores[last], seeds.labels, seeds.columns), self.rank[rows[last]]

    def fused_by_overlap(self) -> Detections:
        """One box per cluster, best seed first: boxes weigh by score times IoU with the seed, scores by that IoU."""
        rows = self.votes()
        first = np.flatnonzero(self.rank[rows] == 1)
        if not len(first):
            return self.members.select(rows)
        cluster = self.cluster[rows]
        boxes, seeds = self.members.boxes[rows], self.members.boxes[rows[first]]
        overlap = paired_iou(boxes, seeds[cluster])
        overlap[first] = 1.0  # also of a box without volume
        weight = self.members.scores[rows] * overlap
        votes = np.add.reduceat(np.ones(len(rows)), first)
        score = np.add.reduceat(weight, first) / np.add.reduceat(overlap, first) * votes / self.num_parts
        total = np.add.reduceat(weight, first)[:, None]
        moved = np.add.reduceat((boxes - seeds[cluster]) * weight[:, None], first)
        shift = np.divide(moved, total, out=np.zeros_like(moved), where=total > 0)
        lead = self.members.select(rows[first])
        return Detections(seeds + shift, score, lead.labels, lead.columns)


def cluster_parts(parts: Sequence[Detections], iou: float) -> PartClusters:
    """Cluster the boxes of all ``parts`` around greedy seeds; IoU with the seed >= ``iou`` joins.

    Raises:
        ValueError: no parts, different columns, or 2D boxes without ``slice``.
    """
    stacked, part = _stack(parts)
    order = np.argsort(-stacked.scores, kind="stable")
    members, part = stacked.select(order), part[order]
    seeds = greedy_seeds(members, iou, inclusive=True)
    cluster = np.unique(seeds, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return PartClusters(members, part, cluster, vote_ranks(cluster, part, len(parts)), len(parts))


def greedy_seeds(detections: Detections, iou: float, *, inclusive: bool) -> NDArray[np.int64]:
    """For each box the row ``[N]`` of the seed that claims it; seeds claim themselves.

    Args:
        detections: 2D with column ``slice``, or 3D.
        iou: overlap with the seed from which on a box is claimed; boxes that do not touch are never claimed.
        inclusive: whether an IoU of exactly ``iou`` is enough.

    Raises:
        ValueError: 2D boxes without the column ``slice``.
    """
    group = _competitors(detections)
    order = np.argsort(-detections.scores, kind="stable")
    boxes, group = detections.boxes[order], group[order]
    found = claim_greedily(overlapping_pairs(boxes, group, iou, inclusive=inclusive), len(order))
    seeds = np.empty(len(order), dtype=np.int64)
    seeds[order] = order[found]
    return seeds


def claim_greedily(pairs: NDArray[np.int64], num_boxes: int) -> NDArray[np.int64]:
    """The greedy pass over boxes in their given order: for each box the row of its seed.

    Args:
        pairs: ``[P, 2]`` rows that overlap enough, earlier row first, in ascending order.
        num_boxes: rows.
    """
    seeds = np.arange(num_boxes)
    free = np.ones(num_boxes, dtype=bool)
    earlier, begin = np.unique(pairs[:, 0], return_index=True)
    ends = [*begin[1:].tolist(), len(pairs)]
    later = pairs[:, 1]
    for row, start, end in zip(earlier.tolist(), begin.tolist(), ends, strict=False):
        if free[row]:
            near = later[start:end]
            near = near[free[near]]
            seeds[near] = row
            free[near] = False
    return seeds


def _competitors(detections: Detections) -> NDArray[np.int64]:
    """Number ``[N]`` of the (slice, label) of each box."""
    if detections.dim == 3 or not len(detections):
        return np.unique(detections.labels, return_inverse=True)[1].reshape(-1)
    if "slice" not in detections.columns:
        raise ValueError("2D detections need the column 'slice'")
    keys = np.stack([detections.columns["slice"], detections.labels], axis=1)
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)


def _stack(parts: Sequence[Detections]) -> tuple[Detections, NDArray[np.int64]]:
    """All rows and the index of the part of each; empty parts need no columns."""
    if not parts:
        raise ValueError("no parts to cluster: at least one set of detections is needed")
    filled = [part for part in parts if len(part)]
    part_index = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return Detections.concatenate(filled) if filled else parts[0], part_index


def vote_ranks(cluster: NDArray[np.int64], part: NDArray[np.int64], num_parts: int) -> NDArray[np.int64]:
    """Rank of each box in its cluster, counting only the first (best) box of each part; others 0."""
    first = np.sort(np.unique(cluster * num_parts + part, return_index=True)[1])
    voting = first[np.argsort(cluster[first], kind="stable")]
    start = np.searchsorted(cluster[voting], cluster[voting])
    ranks = np.zeros(len(cluster), dtype=np.int64)
    ranks[voting] = np.arange(len(voting)) - start + 1
    return ranks


def paired_iou(first: Boxes, second: Boxes) -> NDArray[np.float64]:
    """Intersection over union ``[N]`` of row with row; 0 where both are empty."""
    dim = first.shape[1] // 2
    sides = np.minimum(first[:, dim:], second[:, dim:]) - np.maximum(first[:, :dim], second[:, :dim])
    overlap = np.prod(np.clip(sides, 0, None), axis=1)
    union = box_volumes(first) + box_volumes(second) - overlap
    iou: NDArray[np.float64] = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return iou
