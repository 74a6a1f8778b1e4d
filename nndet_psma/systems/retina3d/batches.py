"""Batches of training patches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.region import Region
from nndet_psma.preprocess.windows import seen_arrays
from nndet_psma.systems.retina3d.augmentation import (
    Lesions,
    PatchMap,
    Point,
    patch_map,
    patch_target,
    shown_extent,
    warp_instances,
    warp_patch,
)
from nndet_psma.systems.retina3d.channels import VoxelBox, box_channels, box_slices, common_box, region_box
from nndet_psma.systems.retina3d.plan import Retina3DPlan
from nndet_psma.trainers.augmentation.draw import (
    AugmentationDraw,
    augment_intensity,
    smoothing_margin,
)
from nndet_psma.trainers.batches import StoreBatches

_TRIES = 100  # to hit a searched voxel of a region's box


@dataclass(frozen=True)
class PatchRef:
    """What a slot of a batch shows: a lesion of a case (its row), or anything of it (None)."""

    case: int
    lesion: int | None


class PatchBatches(StoreBatches[Retina3DPlan, PatchRef]):
    """Patches of which the planned share shows a lesion.

    It is drawn among all lesions alike and whole wherever it fits; the other patches lie anywhere in the stage's
    region, as patches of a prediction do. Targets are ``{"boxes" [N, 6], "labels" [N] from 0, "mask" [z, y, x] with a
    segmentation head}``, names are "case:z,y,x", the store voxel in the patch's centre.

    Args:
        store: folder of preprocessed cases.
        plan: windows, sampling, augmentation, patch size.
        stage: region and windows.
        case_ids: training cases.
        batch_size: patches per step.
        seed: of sampling and augmentation.

    Raises:
        UserError: none of the cases has a lesion in the stage's region.
    """

    def __init__(
        self, store: Path, plan: Retina3DPlan, stage: Stage, case_ids: list[str], batch_size: int, seed: int
    ) -> None:
        detector = plan.detector3d
        normal = (detector.input_mean, detector.input_std)
        super().__init__(
            store, plan, stage, case_ids, batch_size, seed, size=detector.patch_size, normal=normal
        )
        self.lesions = [_lesions(*pair) for pair in zip(self.cases, self.regions, strict=True)]
        self.positive = [
            PatchRef(case, row)
            for case, of_case in enumerate(self.lesions)
            for row in range(len(of_case.ids))
        ]
        self._check_lesions(self.positive)

    def _draw(self, rng: np.random.Generator) -> list[PatchRef]:
        wanted = max(1, round(self.batch_size * self.plan.positive_fraction))
        positive = [self.positive[i] for i in rng.integers(len(self.positive), size=wanted)]
        others = rng.integers(len(self.cases), size=self.batch_size - wanted)
        return positive + [PatchRef(case, None) for case in others.tolist()]

    def _load(
        self, ref: PatchRef, draw: AugmentationDraw, rng: np.random.Generator, out: Tensor
    ) -> tuple[dict[str, Tensor], str]:
        case, region = self.cases[ref.case], self.regions[ref.case]
        size = self.plan.detector3d.patch_size
        if ref.lesion is None:
            point, place = _anywhere(region, size, rng)
        else:
            point, place = _round_lesion(self.lesions[ref.case].boxes[ref.lesion], size, draw, rng)
        mapping = patch_map(draw, size, point, place)
        self._show(case, region, mapping, draw, out)
        target = self._target(case, region, self.lesions[ref.case], mapping)
        return target, f"{case.case_id}:{','.join(str(int(v)) for v in point)}"

    def _show(
        self, case: PreparedCase, region: Region, mapping: PatchMap, draw: AugmentationDraw, out: Tensor
    ) -> None:
        shown = mapping.grown(smoothing_margin(draw))
        box = shown.footprint(region_box(region))
        kept = None if box is None else _kept(region, box)
        if box is None or kept is None:
            return
        channels = box_channels(seen_arrays(case, self.sources), self.sources, box, kept)
        rough = draw.blur or draw.noise_std > 0
        if rough:
            channels = np.concatenate([channels, kept[None].astype(np.float32)])
        warped = warp_patch(channels, box[:3], shown)
        count, depth = len(self.sources), mapping.depth
        slices = warped[:count].reshape(-1, *warped.shape[2:])
        out.copy_(augment_intensity(slices, draw, self.plan.augmentation).reshape(out.shape))
        if rough:
            # smoothing and noise must not reach what is masked away or padding: a prediction sees exact zeros there
            margin, (height, width) = smoothing_margin(draw), mapping.plane.size
            inside = warped[-1, :depth, margin : margin + height, margin : margin + width] > 0
            out.masked_fill_(~inside, 0.0)

    def _target(
        self, case: PreparedCase, region: Region, lesions: Lesions, mapping: PatchMap
    ) -> dict[str, Tensor]:
        shown = np.zeros(mapping.size, dtype=np.int16)
        box = mapping.footprint(region_box(region))
        near = None if box is None else _near_lesions(lesions, box)
        if near is not None:
            shown = warp_instances(_visible(case, region, near), near[:3], mapping)
        mask = self.plan.detector3d.segmentation_head
        return patch_target(shown, lesions, case.classes, mapping, mask=mask)


def _round_lesion(
    box: NDArray[np.float64], size: tuple[int, int, int], draw: AugmentationDraw, rng: np.random.Generator
) -> tuple[Point, Point]:
    """A lesion's centre and where in the patch it lies: anywhere that shows it whole, the middle if nothing does."""
    half = shown_extent(draw, box[3:] - box[:3]) / 2
    centre, share = (box[:3] + box[3:]) / 2, rng.random(3)
    room = np.maximum(np.array(size) - 2 * half, 0)
    place = np.array(size) / 2 + (share - 0.5) * room
    return _point(centre), _point(place)


def _anywhere(region: Region, size: tuple[int, int, int], rng: np.random.Generator) -> tuple[Point, Point]:
    """Centre of a patch that shows a searched voxel and lies within the region, as far as it fits."""
    box = region_box(region)
    lower, upper = np.array(box[:3]), np.array(box[3:])
    voxel = rng.integers(lower, upper)
    for _ in range(_TRIES):
        if region.mask is None or region.mask[tuple(voxel)]:
            break
        voxel = rng.integers(lower, upper)
    sides = np.array(size)
    first, last = np.maximum(lower, voxel - sides + 1), np.minimum(upper - sides, voxel)
    fits = last >= first
    # where the patch is larger than the region, it may lie anywhere round it
    first, last = np.where(fits, first, upper - sides), np.where(fits, last, lower)
    start = rng.integers(first, np.maximum(first, last) + 1)
    return _point(start + sides / 2), _point(sides / 2)


def _point(values: NDArray[np.float64]) -> Point:
    z, y, x = (float(v) for v in values)
    return z, y, x


def _kept(region: Region, box: VoxelBox) -> NDArray[np.bool_] | None:
    """Voxels of a box that the stage sees; None when there are none."""
    if region.mask is None:
        return np.ones([box[axis + 3] - box[axis] for axis in range(3)], dtype=bool)
    kept: NDArray[np.bool_] = region.mask[box_slices(box)]
    return kept if kept.any() else None


def _visible(case: PreparedCase, region: Region, box: VoxelBox) -> NDArray[np.int16]:
    """Instance ids in a box; what is masked away cannot be learnt."""
    instances = np.asarray(case.labelled[box_slices(box)])
    return instances if region.mask is None else instances * region.mask[box_slices(box)]


def _lesions(case: PreparedCase, region: Region) -> Lesions:
    box = region_box(region)
    return Lesions.of(_visible(case, region, box), box[:3])


def _near_lesions(lesions: Lesions, box: VoxelBox) -> VoxelBox | None:
    """The part of a box that may show lesions; None when none lies in it."""
    sides = lesions.boxes.astype(np.int64)
    touching = ((sides[:, :3] < box[3:]) & (sides[:, 3:] > box[:3])).all(axis=1)
    if not touching.any():
        return None
    z0, y0, x0 = sides[touching, :3].min(axis=0).tolist()
    z1, y1, x1 = sides[touching, 3:].max(axis=0).tolist()
    return common_box((z0, y0, x0, z1, y1, x1), box)
