"""Run 3D detectors over a prepared case, patch by patch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.boxes.detections import Detections
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.region import Region, stage_region
from nndet_psma.preprocess.windows import channel_sources, normalised, seen_arrays
from nndet_psma.systems.retina3d.channels import VoxelBox, patch_channels, region_box
from nndet_psma.systems.retina3d.join_patches import PatchBoxes, join_patches, place_boxes
from nndet_psma.systems.retina3d.plan import Detector3D, Retina3DPlan, Steps
from nndet_psma.trainers.networks.box_evidence import with_evidence

Batch = tuple[list[VoxelBox], Tensor]


@torch.no_grad()
def predict_patches(
    models: Sequence[nn.Module],
    case: PreparedCase,
    plan: Retina3DPlan,
    stage: Stage,
    *,
    device: torch.device,
    batch_size: int,
    mirrored: bool = False,
) -> list[Detections]:
    """3D boxes on the store grid of each of the models, with columns ``zone_mm`` and ``hu_quantiles``.

    Patches are read and windowed once for all models, the next ones while the models are at work.

    Args:
        models: detectors of the stage (its folds) in evaluation mode on ``device``.
        case: prepared case.
        plan: patch size, overlap and channels.
        stage: region and windows.
        device: where the models are.
        batch_size: patches per forward pass.
        mirrored: look at left-right mirror images of the patches; the boxes come back unmirrored.
    """
    detector = plan.detector3d
    region = stage_region(case, plan, stage)
    covered = region_box(region)
    parts: list[list[PatchBoxes]] = [[] for _ in models]
    for places, images in _batches(case, plan, stage, region, batch_size):
        batch = (images.flip(-1) if mirrored else images).to(device, non_blocking=True)
        for part, model in zip(parts, models, strict=True):
            for place, output in zip(places, model(batch), strict=True):
                boxes, scores, labels = (output[name].numpy() for name in ("boxes", "scores", "labels"))
                if mirrored:
                    boxes = unmirror(boxes, detector.patch_size[2])
                part.append(place_boxes(boxes, scores, labels, place, covered))
    return [with_evidence(join_patches(part, case.geometry.shape), case, plan) for part in parts]


def patch_places(region: VoxelBox, detector: Detector3D) -> list[VoxelBox]:
    """Patches that cover a region, evenly spaced, neighbours overlapping by at least the planned share.

    Where the region is smaller than a patch, the patch is centred on it and reaches beyond.
    """
    size, axes = detector.patch_size, []
    for axis in range(3):
        axes.append(patch_starts(region[axis], region[axis + 3], size[axis], detector.patch_overlap))
    return [_patch((z, y, x), size) for z, y, x in product(*axes)]


def patch_starts(lower: int, upper: int, size: int, overlap: float) -> list[int]:
    """First voxels of the patches along an axis."""
    room = upper - lower - size
    if room <= 0:
        return [lower + room // 2]
    steps = ceil(room / max(1.0, size * (1 - overlap)))
    return [lower + round(room * number / steps) for number in range(steps + 1)]


def unmirror(boxes: NDArray[np.floating[Any]], width: int) -> NDArray[np.floating[Any]]:
    """Boxes ``[N, 6]`` of a left-right mirror image that is ``width`` voxels wide, in the image itself."""
    back = boxes.copy()
    back[:, 2], back[:, 5] = width - boxes[:, 5], width - boxes[:, 2]
    return back


def _patch(lower: Steps, size: Steps) -> VoxelBox:
    z, y, x = lower
    return z, y, x, z + size[0], y + size[1], x + size[2]


def _batches(
    case: PreparedCase, plan: Retina3DPlan, stage: Stage, region: Region, batch_size: int
) -> Iterator[Batch]:
    """Patches with anything to see and their images ``[B, C, z, y, x]``; the next batch is read ahead."""
    detector, sources = plan.detector3d, channel_sources(plan, stage)
    arrays = seen_arrays(case, sources)
    places = iter(patch_places(region_box(region), detector))

    def read() -> Batch | None:
        found, images = [], []
        for place in places:
            channels = patch_channels(arrays, sources, place, region)
            if channels is not None:
                found.append(place)
                image = torch.from_numpy(channels)
                images.append(normalised(image, detector.input_mean, detector.input_std))
            if len(found) == batch_size:
                break
        return (found, torch.stack(images)) if found else None

    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read)
        while (batch := coming.result()) is not None:
            coming = reader.submit(read)
            yield batch
