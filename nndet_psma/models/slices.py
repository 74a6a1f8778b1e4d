"""Run one detector over the slices of a prepared case."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nndet_psma.artifacts.plan import Plan, Stage
from nndet_psma.core.boxes import Boxes, clip_boxes, from_torchvision
from nndet_psma.core.detections import Detections
from nndet_psma.planners.rules import input_size
from nndet_psma.postproc.hu_filter import QUANTILES
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.region import Region, stage_region
from nndet_psma.preprocess.warp import PlaneMap, plane_map, warp
from nndet_psma.preprocess.windows import channel_sources, slice_channels

_MIN_SIDE_VOXELS = 0.5


@torch.no_grad()
def predict_slices(
    model: nn.Module,
    case: PreparedCase,
    plan: Plan,
    stage: Stage,
    *,
    device: torch.device,
    batch_size: int,
    mirrored: bool = False,
    only: NDArray[np.int64] | None = None,
) -> Detections:
    """2D boxes on the store grid with columns ``slice``, ``zone_mm`` and ``hu_quantiles``.

    Args:
        model: detector of the stage in evaluation mode on ``device``.
        case: prepared case.
        plan: scale and channels.
        stage: region and windows.
        device: where the model is.
        batch_size: slices per forward pass.
        mirrored: look at the left-right mirror image (test-time augmentation); boxes come back unmirrored.
        only: axial slices to look at; all of the stage's region when omitted.
    """
    region = stage_region(case, plan, stage)
    if only is not None:
        region = replace(region, slices=np.intersect1d(region.slices, only))
    mapping = _case_map(region, plan, stage, mirrored)
    parts: list[tuple[int, dict[str, Tensor]]] = []
    for slices, images in _batches(case, region, plan, stage, mapping, batch_size):
        outputs = model([image.to(device) for image in images])
        parts += [
            (z, {k: v.cpu() for k, v in output.items()}) for z, output in zip(slices, outputs, strict=True)
        ]
    found = [_detections(z, output, mapping, case) for z, output in parts]
    detections = Detections.concatenate([part for part in found if len(part)] or found[:1], dim=2)
    if "slice" not in detections.columns:
        detections = Detections.empty(2, {"slice": np.zeros(0, dtype=np.int64)})
    return _with_evidence(detections, case, plan)


def _case_map(region: Region, plan: Plan, stage: Stage, mirrored: bool) -> PlaneMap:
    """Planned scale, and an input just large enough for this case's region: nothing is cut off."""
    detector = plan.detector
    scale = detector.scale if stage.region == "search" else detector.body_scale
    plane = (region.box[2] - region.box[0], region.box[3] - region.box[1])
    size = input_size(plane, scale, 2 ** (max(detector.levels) + 1))
    return plane_map(region.centre, scale, size, flip=mirrored)


def _batches(
    case: PreparedCase, region: Region, plan: Plan, stage: Stage, mapping: PlaneMap, batch_size: int
) -> Iterator[tuple[list[int], list[Tensor]]]:
    sources = channel_sources(plan, stage)
    detector = plan.detector
    for start in range(0, len(region.slices), batch_size):
        slices = region.slices[start : start + batch_size].tolist()
        images = []
        for z in slices:
            mask = None if region.mask is None else region.mask[z]
            channels = slice_channels(case.arrays, sources, z, plan.neighbours, mask)
            images.append((warp(channels, mapping) - detector.input_mean) / detector.input_std)
        yield slices, images


def _detections(z: int, output: dict[str, Tensor], mapping: PlaneMap, case: PreparedCase) -> Detections:
    boxes = mapping.boxes_to_store(from_torchvision(output["boxes"].numpy().astype(np.float64)))
    boxes = clip_boxes(boxes, case.geometry.shape[1:])
    keep = ((boxes[:, 2:] - boxes[:, :2]) >= _MIN_SIDE_VOXELS).all(axis=1)
    return Detections.build(
        boxes[keep],
        output["scores"].numpy()[keep],
        output["labels"].numpy()[keep] - 1,
        dim=2,
        slice=np.full(int(keep.sum()), z, dtype=np.int64),
    )


def _with_evidence(detections: Detections, case: PreparedCase, plan: Plan) -> Detections:
    """Add what the filters ask: distance outside the CTV, HU quantiles of every box."""
    z = detections.columns["slice"]
    centres = (detections.boxes[:, :2] + detections.boxes[:, 2:]) / 2
    points = np.column_stack([z + 0.5, centres]) if len(detections) else np.zeros((0, 3))
    quantiles = np.full((len(detections), len(QUANTILES)), np.nan, dtype=np.float32)
    if plan.ct_name is not None:
        ct = case.arrays[plan.ct_name]
        for row, (index, box) in enumerate(zip(z.tolist(), detections.boxes, strict=True)):
            quantiles[row] = _box_quantiles(ct[index], box)
    return detections.with_columns(zone_mm=case.zone_mm(points), hu_quantiles=quantiles)


def _box_quantiles(plane: NDArray, box: Boxes) -> NDArray[np.float32]:
    y0, x0 = np.floor(box[:2]).astype(int)
    y1, x1 = np.maximum(np.ceil(box[2:]).astype(int), [y0 + 1, x0 + 1])
    return np.quantile(plane[y0:y1, x0:x1], QUANTILES).astype(np.float32)
