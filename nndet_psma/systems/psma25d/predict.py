"""Run one detector over the slices of a prepared case."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.boxes.box import clip_boxes, from_torchvision
from nndet_psma.boxes.detections import Detections
from nndet_psma.planners.rules import input_size
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.region import Region, stage_region
from nndet_psma.preprocess.warp import PlaneMap, plane_map, warp
from nndet_psma.preprocess.windows import channel_sources, normalised, seen_arrays, slice_channels
from nndet_psma.systems.psma25d.plan import PSMA25DPlan
from nndet_psma.trainers.networks.box_evidence import with_evidence

_MIN_SIDE_VOXELS = 0.5


def predict_slices(
    model: nn.Module,
    case: PreparedCase,
    plan: PSMA25DPlan,
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
    return predict_region(
        [model], case, plan, stage, region, device=device, batch_size=batch_size, mirrored=mirrored
    )[0]


@torch.no_grad()
def predict_region(
    models: Sequence[nn.Module],
    case: PreparedCase,
    plan: PSMA25DPlan,
    stage: Stage,
    region: Region,
    *,
    device: torch.device,
    batch_size: int,
    mirrored: bool = False,
) -> list[Detections]:
    """What :func:`predict_slices` finds, for several detectors of one stage (its folds): slices are prepared once.

    Args:
        models: detectors of the stage in evaluation mode on ``device``.
        case: prepared case.
        plan: scale and channels.
        stage: windows.
        region: of the stage, :func:`~nndet_psma.preprocess.region.stage_region`.
        device: where the models are.
        batch_size: slices per forward pass.
        mirrored: look at the mirror image.
    """
    mapping = case_map(region, plan, stage, mirrored)
    parts: list[list[Detections]] = [[] for _ in models]
    for slices, images in _batches(case, region, plan, stage, mapping, batch_size):
        batch = [image.to(device, non_blocking=True) for image in images]
        for part, model in zip(parts, models, strict=True):
            outputs = [{k: v.cpu() for k, v in output.items() if k != "masks"} for output in model(batch)]
            part += [_detections(z, found, mapping, case) for z, found in zip(slices, outputs, strict=True)]
    return [with_evidence(_joined(part), case, plan) for part in parts]


def _joined(parts: list[Detections]) -> Detections:
    found = Detections.concatenate([part for part in parts if len(part)] or parts[:1], dim=2)
    if "slice" in found.columns:
        return found
    return Detections.empty(2, {"slice": np.zeros(0, dtype=np.int64)})


def case_map(region: Region, plan: PSMA25DPlan, stage: Stage, mirrored: bool) -> PlaneMap:
    """Planned scale, and an input just large enough for this case's region: nothing is cut off."""
    detector = plan.detector
    scale = detector.scale if stage.region == "search" else detector.body_scale
    plane = (region.box[2] - region.box[0], region.box[3] - region.box[1])
    size = input_size(plane, scale, 2 ** (max(detector.levels) + 1))
    return plane_map(region.centre, scale, size, flip=mirrored)


def _batches(
    case: PreparedCase, region: Region, plan: PSMA25DPlan, stage: Stage, mapping: PlaneMap, batch_size: int
) -> Iterator[tuple[list[int], list[Tensor]]]:
    sources = channel_sources(plan, stage)
    arrays, detector = seen_arrays(case, sources), plan.detector
    for start in range(0, len(region.slices), batch_size):
        slices = region.slices[start : start + batch_size].tolist()
        images = []
        for z in slices:
            mask = None if region.mask is None else region.mask[z]
            channels = slice_channels(arrays, sources, z, plan.neighbours, mask)
            images.append(normalised(warp(channels, mapping), detector.input_mean, detector.input_std))
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
