"""From the boxes of overlapping patches to the boxes of a case.

As nnDetection's ensembler, boxes near the centre of their patch count more, because more of their surroundings was
seen. What it leaves to a small overlap threshold is said outright here: two patches that see the same lesion give one
box, and a box that ends at an inner face of its patch, the stump of a lesion, gives way to the whole one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.box import Boxes, box_centres, box_sizes, box_volumes, empty_boxes
from nndet_psma.boxes.clustering import claim_greedily
from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.overlaps import overlapping_pairs
from nndet_psma.systems.retina3d.channels import VoxelBox

CASE_BOXES = 1000  # kept per case, as nnDetection keeps
_CANDIDATES = 4 * CASE_BOXES
_PLATEAU = 0.5  # share of the half diagonal within which a box counts fully (nnDetection)
_MIN_SIDE_VOXELS = 0.5
_FACE_VOXELS = 1.0  # a box that ends so near to a face ends at it
_CUT_WEIGHT = 0.5
_SAME_IOU = 0.2  # two patches rarely agree better on a lesion of few voxels
_SAME_SHARE = 0.5  # of a stump that lies in another box


@dataclass(frozen=True)
class PatchBoxes:
    """Boxes of one patch.

    Attributes:
        boxes: ``[N, 6]`` in store voxels.
        scores: ``[N]``.
        labels: ``[N]``.
        weights: ``[N]`` trust in (0, 1], by the place in the patch.
        cut: ``[N]`` at how many faces of the patch behind which the region goes on the box ends.
    """

    boxes: Boxes
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]
    cut: NDArray[np.int64]


def place_boxes(
    boxes: Boxes,
    scores: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    patch: VoxelBox,
    region: VoxelBox,
) -> PatchBoxes:
    """Boxes of a patch, in its own voxels, on the store grid.

    Args:
        boxes: ``[N, 6]``.
        scores: ``[N]``.
        labels: ``[N]``.
        patch: place of the patch in the store.
        region: that patches cover; its border cuts no lesion.
    """
    lower, upper = np.array(patch[:3]), np.array(patch[3:])
    sides = upper - lower
    weights = centre_weights(boxes, sides)
    inner = np.concatenate([lower > region[:3], upper < region[3:]])
    at_face = np.concatenate([boxes[:, :3] <= _FACE_VOXELS, boxes[:, 3:] >= sides - _FACE_VOXELS], axis=1)
    placed = boxes.astype(np.float64) + np.tile(lower, 2)
    cut = (at_face & inner).sum(axis=1)
    return PatchBoxes(placed, scores.astype(np.float64), labels.astype(np.int64), weights, cut)


def centre_weights(boxes: Boxes, sides: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weight ``[N]`` of boxes in a patch: 1 up to half of the way from its centre to a corner, 0.5 at a corner."""
    away = np.linalg.norm(box_centres(boxes.astype(np.float64)) - sides / 2, axis=1)
    share = away / np.linalg.norm(sides / 2)
    return np.asarray(1.0 - np.clip(share - _PLATEAU, 0.0, 0.5))


def join_patches(parts: list[PatchBoxes], shape: tuple[int, ...]) -> Detections:
    """One box per lesion and view of it, of all the patches of a case; best score first, at most a thousand.

    Boxes are visited by score times weight, with half of it for every cut. Boxes of one patch were compared in the
    network; one of another patch is the same lesion at an IoU above 0.2, or when half of a cut one lies in it.

    Args:
        parts: of every patch.
        shape: of the store, to which boxes are clipped.
    """
    number = np.repeat(np.arange(len(parts)), [len(part.scores) for part in parts])
    if len(number) == 0:
        return Detections.empty(3)
    boxes = np.concatenate([empty_boxes(3), *(part.boxes for part in parts)])
    boxes = np.clip(boxes, 0, np.tile(shape, 2).astype(np.float64))
    scores, labels, weights, cut = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("scores", "labels", "weights", "cut")
    )
    trust = scores * weights * _CUT_WEIGHT**cut
    trust[(box_sizes(boxes) < _MIN_SIDE_VOXELS).any(axis=1)] = -1.0  # in the padding beyond the case
    order = np.argsort(-trust, kind="stable")[: min(_CANDIDATES, int((trust >= 0).sum()))]
    pairs = _same_lesion(boxes[order], labels[order], number[order], cut[order] > 0)
    kept = order[claim_greedily(pairs, len(order)) == np.arange(len(order))]
    found = Detections(boxes[kept], scores[kept], labels[kept]).sorted_by_score()
    return found.select(np.arange(min(len(found), CASE_BOXES)))


def _same_lesion(
    boxes: Boxes, labels: NDArray[np.int64], patch: NDArray[np.int64], cut: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Pairs of boxes of different patches that show the same lesion, as ``overlapping_pairs`` orders them."""
    similar: NDArray[np.int64] = overlapping_pairs(boxes, labels, _SAME_IOU, inclusive=False)
    similar = similar[patch[similar[:, 0]] != patch[similar[:, 1]]]
    if not cut.any():
        return similar
    first, second = _touching(boxes, labels, patch, cut).T
    lower = np.maximum(boxes[first, :3], boxes[second, :3])
    upper = np.minimum(boxes[first, 3:], boxes[second, 3:])
    overlap = np.prod(np.clip(upper - lower, 0, None), axis=1)
    volumes = box_volumes(boxes)
    within = [cut[row] & (overlap >= _SAME_SHARE * volumes[row]) for row in (first, second)]
    stumps = np.stack([first, second], axis=1)[within[0] | within[1]]
    return np.unique(np.concatenate([similar, stumps]), axis=0)


def _touching(
    boxes: Boxes, labels: NDArray[np.int64], patch: NDArray[np.int64], cut: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Pairs of touching boxes of different patches, of which at least one is cut."""
    pairs = overlapping_pairs(boxes, labels, 0.0, inclusive=False)
    differ = patch[pairs[:, 0]] != patch[pairs[:, 1]]
    touching: NDArray[np.int64] = pairs[differ & (cut[pairs[:, 0]] | cut[pairs[:, 1]])]
    return touching
