"""Suppression of 3D boxes on a GPU where nnDetection's compiled extension is missing."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import numpy as np
from torch import Tensor

_MODULE = "nndet.core.boxes.nms"  # "import nndet.core.boxes.nms as x" would yield the function of that name


BLOCK = 256
"""Boxes whose overlaps with all others are held at once: of 10000 candidates that is 10 MB a matrix, not 400."""

PAIR_BYTES = 40
"""Per pair of boxes: nnDetection's IoU holds ten matrices of 32 bit at once, six corners and what it makes of them."""


def nms_bytes(candidates: int) -> int:
    """Most memory that :func:`nms_3d` takes on the boxes' device, for so many candidates of an image."""
    return PAIR_BYTES * min(BLOCK, candidates) * candidates


def nms_3d(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression: overlaps where the boxes lie, block by block, the pass over them on the CPU.

    Args:
        boxes: ``[N, 6]`` nnDetection's.
        scores: ``[N]``.
        iou_threshold: a box is dropped when it overlaps a better kept one by more.

    Returns:
        Rows kept, best score first.
    """
    from nndet.core.boxes.ops import box_iou

    order = scores.sort(descending=True)[1]
    ranked = boxes[order]
    free = np.ones(len(ranked), dtype=bool)
    kept: list[int] = []
    for start in range(0, len(ranked), BLOCK):
        rows = start + np.flatnonzero(free[start : start + BLOCK])
        if len(rows) == 0:
            continue
        rest = ranked[start:]  # better boxes had their turn
        overlapping = (box_iou(ranked[rows], rest) > iou_threshold).cpu().numpy()
        for row, hides in zip(rows.tolist(), overlapping, strict=True):
            if free[row]:
                kept.append(row)
                free[start:] &= ~hides
    return order[kept]


def provide_gpu_nms() -> bool:
    """Give nnDetection :func:`nms_3d` for a GPU if its own was not compiled; returns whether it was needed."""
    import_module(_MODULE)
    module: Any = sys.modules[_MODULE]
    if module.nms_gpu is not None:
        return False
    module.nms_gpu = nms_3d
    return True
