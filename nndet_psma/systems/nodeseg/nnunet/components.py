"""From probabilities of voxels to nodes: contiguous voxels, each with a score, a class and a box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nndet_psma.boxes.box import Boxes, empty_boxes
from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.labels import node_components
from nndet_psma.postproc.steps.hu_filter import QUANTILES
from nndet_psma.systems.nodeseg.plan import Candidates
from nndet_psma.trainers.networks.box_evidence import box_quantiles


@dataclass(frozen=True)
class Nodes:
    """Nodes of a case, best score first.

    Attributes:
        ids: mask (z, y, x) of numbers from 1, 0 outside.
        boxes: ``[N, 6]`` tight boxes, voxel edges.
        scores: ``[N]``.
        labels: ``[N]`` class index from 0.
        certain: ``[N]`` reaches ``Candidates.threshold``; the others are weak candidates.
    """

    ids: NDArray[np.int32]
    boxes: Boxes
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    certain: NDArray[np.bool_]


def find_nodes(probabilities: NDArray[np.floating[Any]], how: Candidates) -> Nodes:
    """Nodes in the probabilities ``[classes + 1, z, y, x]`` of nnU-Net, background first.

    A voxel is foreground by the sum of the classes; the class of a node is the one with the largest sum inside it.
    Weak candidates are contiguous voxels of ``low_threshold`` that hold no node, so that they never join two nodes.
    """
    foreground = probabilities[1:].sum(axis=0, dtype=np.float32)
    ids, count = node_components(foreground >= how.threshold)
    weak, more = node_components(foreground >= how.low_threshold)
    taken = np.zeros(more + 1, dtype=bool)
    taken[weak[ids > 0]] = True
    taken[0] = True
    number = np.cumsum(~taken) + count
    ids = np.where(ids > 0, ids, np.where(taken[weak], 0, number[weak])).astype(np.int32)
    total = count + int((~taken).sum())
    return _measured(ids, total, count, foreground, probabilities, how)


def _measured(
    ids: NDArray[np.int32],
    total: int,
    certain: int,
    foreground: NDArray[np.float32],
    probabilities: NDArray[np.floating[Any]],
    how: Candidates,
) -> Nodes:
    """Scores, classes and boxes of the numbered components; numbers anew, best first."""
    rows: list[tuple[float, int, int]] = []
    boxes, kept = [], []
    for number, cut in enumerate(ndimage.find_objects(ids, max_label=total), start=1):
        if cut is None:
            continue
        inside = ids[cut] == number
        if int(inside.sum()) < how.min_voxels:
            continue
        values = foreground[cut][inside]
        sums = [float(p[cut][inside].sum(dtype=np.float64)) for p in probabilities[1:]]
        rows.append((_score(values, how.score), int(np.argmax(sums)), number <= certain))
        boxes.append([*(s.start for s in cut), *(s.stop for s in cut)])
        kept.append(number)
    if not rows:
        none = np.zeros(0)
        return Nodes(np.zeros_like(ids), empty_boxes(3), none, none.astype(np.int64), none.astype(bool))
    scores, labels, sure = (np.array(column) for column in zip(*rows, strict=True))
    order = np.lexsort((np.arange(len(scores)), -scores, ~sure.astype(bool)))
    table = np.zeros(total + 1, dtype=np.int32)
    table[np.array(kept)[order]] = np.arange(1, len(order) + 1)
    return Nodes(
        table[ids],
        np.array(boxes, dtype=np.float64)[order],
        scores[order].astype(np.float64),
        labels[order].astype(np.int64),
        sure[order].astype(bool),
    )


def _score(values: NDArray[np.float32], kind: str) -> float:
    if kind == "max":
        found = float(values.max())
    elif kind == "mean":
        found = float(values.mean(dtype=np.float64))
    else:
        found = float(np.quantile(values, 0.95))
    return min(1.0, max(0.0, found))


def to_detections(
    nodes: Nodes, zone_mm: NDArray[np.float64], ct: NDArray[Any] | None, offset: tuple[int, int, int]
) -> Detections:
    """Nodes as 3D boxes with the columns that filters ask for.

    Args:
        nodes: on the cut grid.
        zone_mm: ``[N]`` mm outside the CTV.
        ct: HU on the cut grid, None without CT.
        offset: first voxel of the cut on the grid of the boxes (z, y, x).
    """
    quantiles = np.full((len(nodes.boxes), len(QUANTILES)), np.nan, dtype=np.float32)
    if ct is not None:
        for row, box in enumerate(nodes.boxes.astype(np.int64).tolist()):
            z0, y0, x0, z1, y1, x1 = box
            flat = ct[z0:z1, y0:y1, x0:x1].reshape(1, -1, x1 - x0)
            whole = np.array([[0, 0, flat.shape[1], flat.shape[2]]], dtype=np.float64)
            quantiles[row] = box_quantiles(flat, np.zeros(1, dtype=np.int64), whole)[0]
    shift = np.array([*offset, *offset], dtype=np.float64)
    return Detections.build(
        nodes.boxes + shift,
        nodes.scores,
        nodes.labels,
        dim=3,
        zone_mm=zone_mm,
        hu_quantiles=quantiles,
    )
