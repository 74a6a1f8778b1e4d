"""Targets of a training slice: boxes taken from the transformed instance mask, so that they fit after rotation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nndet_psma.boxes.box import boxes_from_instances, to_torchvision
from nndet_psma.preprocess.warp import PlaneMap, warp

_MIN_SIDE_PIXELS = 2  # a thinner box is what rotation or the border left of a lesion


def slice_target(
    instances: NDArray[np.int16], classes: Mapping[int, int], mapping: PlaneMap, *, masks: bool
) -> dict[str, Tensor]:
    """Boxes ``[N, 4]`` float32 in torchvision's order, labels ``[N]`` int64 from 1, masks ``[N, H, W]`` uint8.

    Only the part of the detector image that shows instances is resampled. A lesion so small that no pixel's centre, or
    a single row of them, falls into it keeps the 2 x 2 pixels round its centre.

    Args:
        instances: ids of a slice, 0 is background.
        classes: class of every instance, from 0.
        mapping: from detector pixels to those of ``instances``.
        masks: whether masks are wanted.
    """
    warped, (top, left) = _warped_instances(instances, mapping)
    ids, boxes = boxes_from_instances(warped)
    keep = _is_thick(boxes)
    ids, boxes = ids[keep], boxes[keep] + [top, left, top, left]
    target = {
        "boxes": torch.from_numpy(to_torchvision(boxes)).float(),
        "labels": torch.tensor([classes[int(i)] + 1 for i in ids], dtype=torch.int64),
    }
    if masks:
        target["masks"] = torch.zeros((len(ids), *mapping.size), dtype=torch.uint8)
        rows, columns = slice(top, top + warped.shape[0]), slice(left, left + warped.shape[1])
        target["masks"][:, rows, columns] = torch.from_numpy(warped[None] == ids[:, None, None])
    return target


def _is_thick(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(((boxes[:, 2:] - boxes[:, :2]) >= _MIN_SIDE_PIXELS).all(axis=1))


def _warped_instances(
    instances: NDArray[np.int16], mapping: PlaneMap
) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """The part of the detector image that shows instances, and the pixel (y, x) it begins at."""
    nothing = np.zeros((1, 1), dtype=np.int64), (0, 0)
    ids, boxes = boxes_from_instances(instances)
    if len(ids) == 0:
        return nothing
    y0, x0, y1, x1 = (int(v) for v in (*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)))
    seen = mapping.view((y0, x0, y1, x1))
    if seen[0] >= seen[2] or seen[1] >= seen[3]:
        return nothing
    # with room for what is too small for the pixels' centres
    spare, (height, width) = _MIN_SIDE_PIXELS, mapping.size
    top, left = max(seen[0] - spare, 0), max(seen[1] - spare, 0)
    view = top, left, min(seen[2] + spare, height), min(seen[3] + spare, width)
    part = mapping.part(view)
    source = instances[y0:y1, x0:x1].astype(np.float32)
    warped = warp(source[None], part.cropped((y0, x0)), nearest=True)[0].numpy().astype(np.int64)
    _keep_small(warped, instances, ids, part)
    return warped, (top, left)


def _keep_small(
    warped: NDArray[np.int64], instances: NDArray[np.int16], ids: NDArray[np.int64], mapping: PlaneMap
) -> None:
    """Give an instance that falls between the pixels' centres the pixels round its own centre.

    Only while that centre is in view: of a lesion that lies outside, a rim is no lesion.
    """
    found, boxes = boxes_from_instances(warped)
    for instance in np.setdiff1d(ids, found[_is_thick(boxes)]):
        centre = np.argwhere(instances == instance).mean(axis=0) + 0.5
        y, x = mapping.to_detector(centre[None])[0]
        if 0 <= y < warped.shape[0] and 0 <= x < warped.shape[1]:
            row, column = (
                int(np.clip(round(v) - _MIN_SIDE_PIXELS // 2, 0, max(0, side - _MIN_SIDE_PIXELS)))
                for v, side in zip((y, x), warped.shape, strict=True)
            )
            warped[row : row + _MIN_SIDE_PIXELS, column : column + _MIN_SIDE_PIXELS] = instance
