"""Suppression against MONAI's and ensemble-boxes' own functions, where they are installed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from nndet_psma.boxes.clustering import nms_mask
from nndet_psma.boxes.detections import Detections

IOU = 0.3


def scattered(dim: int, objects: int, seed: int, number: int = 400) -> Detections:
    """Boxes round ``objects`` places with distinct scores, on a grid of 1/16 that float32 holds exactly."""
    rng = np.random.default_rng(seed)
    centre, side = rng.uniform(40, 400, (objects, dim)), rng.uniform(4, 20, (objects, dim))
    place = rng.integers(0, objects, number)
    middle = centre[place] + rng.normal(0, 1.5, (number, dim))
    half = side[place] * rng.uniform(0.8, 1.2, (number, dim)) / 2
    boxes = np.round(np.hstack([middle - half, middle + half]).clip(0) * 16) / 16
    score = ((rng.permutation(number) + 1) / (number + 1)).astype(np.float32)
    columns = {"slice": np.zeros(number, dtype=np.int64)} if dim == 2 else {}
    return Detections.build(boxes, score, dim=dim, **columns)


@pytest.mark.parametrize("objects", [4, 60, 400])
@pytest.mark.parametrize("dim", [2, 3])
def test_the_same_boxes_as_monai(dim: int, objects: int) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        box_utils = pytest.importorskip("monai.data.box_utils", reason="MONAI is not installed")
    boxes = scattered(dim, objects, seed=objects)
    kept = box_utils.non_max_suppression(
        torch.from_numpy(boxes.boxes.astype(np.float32)),
        torch.from_numpy(boxes.scores.astype(np.float32)),
        IOU,
    )
    assert sorted(kept.tolist()) == np.flatnonzero(nms_mask(boxes, IOU)).tolist()


@pytest.mark.parametrize("objects", [4, 60, 400])
def test_the_same_boxes_as_ensemble_boxes(objects: int) -> None:
    package = pytest.importorskip("ensemble_boxes", reason="ensemble-boxes is not installed")
    boxes = scattered(2, objects, seed=objects)
    _, scores, _ = package.nms([boxes.boxes / 1024], [boxes.scores], [boxes.labels], iou_thr=IOU)
    own = boxes.scores[nms_mask(boxes, IOU)]
    assert sorted(float(s) for s in scores) == sorted(float(s) for s in own)
