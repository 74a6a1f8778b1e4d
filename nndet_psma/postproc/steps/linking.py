"""Slice boxes that continue each other become 3D lesions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.box import Boxes, box_sizes, pairwise_iou
from nndet_psma.boxes.detections import Detections

EXTENT_QUANTILE = 0.75
"""Share of a lesion's score that its in-plane extent covers on each side, see :func:`link_slices`."""


def link_slices(
    detections: Detections, *, link_iou: float, max_gap: int, spacing: tuple[float, float, float]
) -> tuple[Detections, Detections]:
    """Chain 2D boxes of one label through the slices into 3D lesions.

    Slices are visited in ascending order. Of all pairs (open chain, box of this slice) with an IoU of at least
    ``link_iou`` between the box and the chain's last box, the pair with the highest IoU is joined first, then the next
    among the chains and boxes still free. So a chain takes one box per slice; where a lesion splits, the best
    overlap continues it and the other box starts a new one; where two merge, the better chain goes on.
    Equal overlaps: better box score, then the older chain. The order of the input rows does not matter.

    In plane, a 3D box reaches to the score-weighted 75 % quantile of its slice boxes on each side: the hull grows with
    every stray slice and with in-plane drift, the mean cuts a lesion that tapers towards its ends.
    Up to three slices of equal score that is the hull; of four, the farthest edge on each side is ignored.

    Args:
        detections: 2D boxes in voxels with column ``slice``.
        link_iou: smallest in-plane overlap that continues a lesion, in (0, 1].
        max_gap: slices without a box that a lesion may bridge; 0 links adjacent slices only.
        spacing: voxel size in mm (z, y, x).

    Returns:
        The 2D boxes in their given order with the column ``lesion`` (row of their 3D box), and the 3D boxes, best score
        first, z from the first slice to one after the last; score: the best of its slices, since a lesion counts
        as found when one slice is (Xu 2023, "Model evaluation"); columns ``num_slices`` (boxes linked)
        and ``extent_mm`` (``[N, 3]`` side lengths z, y, x).

    Raises:
        ValueError: not 2D, or no column ``slice``.
    """
    if detections.dim != 2 or "slice" not in detections.columns:
        raise ValueError("linking needs 2D detections with the column 'slice'")
    chains = _make_chains(detections, link_iou, max_gap)
    boxes = [_lesion_box(detections, chain) for chain in chains]
    scores = np.array([detections.scores[chain].max() for chain in chains])
    order = np.argsort(-scores, kind="stable")  # chains come in order of their first box
    lesion = np.zeros(len(detections), dtype=np.int64)
    for index, chain in enumerate(order):
        lesion[chains[chain]] = index
    box_array = np.array(boxes, dtype=np.float64).reshape(-1, 6)
    lesions = Detections(
        box_array,
        scores,
        np.array([detections.labels[chain[0]] for chain in chains], dtype=np.int64),
        {
            "num_slices": np.array([len(chain) for chain in chains], dtype=np.int64),
            "extent_mm": box_sizes(box_array) * np.array(spacing),
        },
    )
    return detections.with_columns(lesion=lesion), lesions.select(order)


def _make_chains(detections: Detections, link_iou: float, max_gap: int) -> list[list[int]]:
    """Rows of every chain, slice by slice; chains ordered by label and first box."""
    slices = detections.columns["slice"]
    chains: list[list[int]] = []
    for label in np.unique(detections.labels):
        rows = _canonical(detections, np.flatnonzero(detections.labels == label))
        of_label: list[list[int]] = []
        for position in np.unique(slices[rows]):
            here = rows[slices[rows] == position]
            still_open = [chain for chain in of_label if slices[chain[-1]] >= position - 1 - max_gap]
            partner = _match(detections, still_open, here, link_iou)
            for row in here.tolist():
                if row in partner:
                    still_open[partner[row]].append(row)
                else:
                    of_label.append([row])
        chains.extend(of_label)
    return chains


def _canonical(detections: Detections, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows by slice, then best score, then coordinates: independent of the order of the input."""
    boxes = detections.boxes[rows]
    keys = (*boxes.T[::-1], -detections.scores[rows], detections.columns["slice"][rows])
    return rows[np.lexsort(keys)]


def _match(
    detections: Detections, chains: list[list[int]], here: NDArray[np.int64], link_iou: float
) -> dict[int, int]:
    """For each box of ``here`` (best score first) that continues a chain (oldest first): row -> chain index."""
    if not chains:
        return {}
    last = np.array([chain[-1] for chain in chains])
    overlap = pairwise_iou(detections.boxes[here], detections.boxes[last])
    box_index, chain_index = np.nonzero(overlap >= link_iou)
    best_first = np.argsort(-overlap[box_index, chain_index], kind="stable")
    partner: dict[int, int] = {}
    taken: set[int] = set()
    for pair in best_first:
        row, chain = int(here[box_index[pair]]), int(chain_index[pair])
        if row not in partner and chain not in taken:
            partner[row] = chain
            taken.add(chain)
    return partner


def _lesion_box(detections: Detections, chain: list[int]) -> Boxes:
    boxes, weights = detections.boxes[chain], detections.scores[chain]
    slices = detections.columns["slice"][chain]
    lower = [-_weighted_quantile(-boxes[:, axis], weights) for axis in (0, 1)]
    upper = [_weighted_quantile(boxes[:, axis], weights) for axis in (2, 3)]
    return np.array([slices.min(), *lower, slices.max() + 1, *upper], dtype=np.float64)


def _weighted_quantile(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Smallest value up to which the values hold ``EXTENT_QUANTILE`` of the weight; equal weights if all are 0."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order] if weights.any() else np.ones(len(values)))
    # a hair below, so that rounding in the sum does not push an exact share to the next value
    reached = np.searchsorted(share, EXTENT_QUANTILE * share[-1] * (1 - 1e-12))
    return float(values[order][reached])
