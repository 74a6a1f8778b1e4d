"""Anchor sizes in nnDetection's own form: edge lengths per axis, every combination of them, doubled level by level."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PER_AXIS = 3
_MOST_BOXES = 300
_SWEEPS = 12
_STEPS = (0.6, 0.75, 0.9, 1.1, 1.25, 1.6)


def fit_edges(sizes: Floats, strides: Floats) -> list[list[int]]:
    """Edge lengths on the finest level that give the highest mean best IoU of boxes and anchors of one centre.

    What nnDetection's ``find_anchors`` maximises by 15000 random trials on a GPU, here by moving one edge at a time
    from the quantiles of the boxes: the same on every run, a second on a CPU.

    Args:
        sizes: boxes' side lengths ``[N, dim]`` in voxels of the network's input.
        strides: of every pyramid level against the finest, ``[L, dim]``; edges are multiplied by them.

    Returns:
        ``dim`` lists of :data:`PER_AXIS` ascending whole numbers from 1 on.

    Raises:
        ValueError: there are no boxes.
    """
    if len(sizes) == 0:
        raise ValueError("anchors need boxes")
    boxes = _thinned(np.asarray(sizes, dtype=np.float64))
    shares = (np.arange(PER_AXIS) + 0.5) / PER_AXIS
    edges = np.maximum(np.rint(np.quantile(boxes, shares, axis=0).T), 1.0)
    best = mean_best_iou(boxes, edges, strides)
    for _ in range(_SWEEPS):
        before = best
        for axis, place in np.ndindex(*edges.shape):
            for value in _moves(float(edges[axis, place])):
                moved = edges.copy()
                moved[axis, place] = value
                if (found := mean_best_iou(boxes, moved, strides)) > best + 1e-6:
                    best, edges = found, moved
        if best - before < 1e-4:
            break
    return [sorted(int(edge) for edge in row) for row in edges]


def mean_best_iou(sizes: Floats, edges: Floats, strides: Floats) -> float:
    """Mean over boxes of the IoU with the best anchor of the same centre.

    Args:
        sizes: ``[N, dim]``.
        edges: ``[dim, K]`` on the finest level.
        strides: ``[L, dim]``.
    """
    anchors = np.array([np.multiply(combo, stride) for stride in strides for combo in product(*edges)])
    shared = np.minimum(sizes[:, None], anchors[None]).prod(axis=2)
    union = sizes.prod(axis=1)[:, None] + anchors.prod(axis=1)[None] - shared
    return float((shared / union).max(axis=1).mean())


def _moves(edge: float) -> list[float]:
    whole = {edge - 1, edge + 1, *(float(round(edge * step)) for step in _STEPS)}
    return sorted(value for value in whole if value >= 1)


def _thinned(sizes: Floats) -> Floats:
    """At most 300 boxes, evenly spaced in the order of volume."""
    order = np.argsort(sizes.prod(axis=1), kind="stable")
    kept = np.linspace(0, len(order) - 1, min(len(order), _MOST_BOXES)).round().astype(int)
    thinned: Floats = sizes[order[kept]]
    return thinned
