"""Suppression of 3D boxes on a GPU where nnDetection's compiled extension is missing."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import numpy as np
from torch import Tensor

_MODULE = "nndet.core.boxes.nms"  # "import nndet.core.boxes.nms as x" would yield the function of that name


def nms_3d(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression: overlaps where the boxes lie, the pass over them on the CPU.

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
    overlapping = (box_iou(ranked, ranked) > iou_threshold).cpu().numpy()
    free = np.ones(len(overlapping), dtype=bool)
    kept = []
    for row in range(len(overlapping)):
        if free[row]:
            kept.append(row)
            free &= ~overlapping[row]
    return order[kept]


def provide_gpu_nms() -> bool:
    """Give nnDetection :func:`nms_3d` for a GPU if its own was not compiled; returns whether it was needed."""
    import_module(_MODULE)
    module: Any = sys.modules[_MODULE]
    if module.nms_gpu is not None:
        return False
    module.nms_gpu = nms_3d
    return True
