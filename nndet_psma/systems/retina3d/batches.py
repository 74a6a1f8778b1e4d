"""Batches of training patches: batch number ``i`` depends on (seed, i) alone, so training resumes exactly."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.core.errors import UserError
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.region import Region, SearchMask, stage_region
from nndet_psma.preprocess.store import read_case
from nndet_psma.preprocess.windows import channel_sources
from nndet_psma.systems.psma25d.batches import shared_zeros
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
from nndet_psma.systems.retina3d.predict import normalised
from nndet_psma.trainers.augmentation.draw import (
    AugmentationDraw,
    augment_intensity,
    draw_augmentation,
    smoothing_margin,
)

_TRIES = 100  # to hit a searched voxel of a region's box


@dataclass(frozen=True)
class PatchRef:
    """What a slot of a batch shows: a lesion of a case (its row), or anything of it (None)."""

    case: int
    lesion: int | None


class PatchBatches(Dataset[dict[str, Any]]):
    """Item ``i`` is the whole batch of optimiser step ``i``.

    A batch is ``{"images": [B, C, z, y, x] float32, "targets": list of {"boxes" [N, 6], "labels" [N] from 0, "mask"
    [z, y, x] with a segmentation head}, "slices": list of "case:z,y,x", the store voxel in the patch's centre, "slots":
    place of every patch in the whole batch}``. Each slot has its own random stream, so a process can load its
    :meth:`part` alone. The planned share of a batch shows a lesion, drawn among all lesions alike and whole wherever
    it fits; the other patches lie anywhere in the stage's region, as patches of a prediction do.

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
        self.store, self.plan, self.stage, self.batch_size = store, plan, stage, batch_size
        # stages share the plan's seed but must not see the same draws
        self.seed = (seed, zlib.crc32(stage.name.encode()))
        self.sources = channel_sources(plan, stage)
        self.cases = [read_case(store, case_id) for case_id in case_ids]
        self.regions = [stage_region(case, plan, stage) for case in self.cases]
        self.lesions = [_lesions(*pair) for pair in zip(self.cases, self.regions, strict=True)]
        self.positive = [
            PatchRef(case, row)
            for case, of_case in enumerate(self.lesions)
            for row in range(len(of_case.ids))
        ]
        if not self.positive:
            raise UserError(
                f"none of the {len(case_ids)} training cases has a lesion in the region of stage '{stage.name}'",
                remedy="Check the folds (splits.json) and the CTV margin",
            )

    def __getstate__(self) -> dict[str, Any]:
        """Without the arrays: a process that is spawned, not forked, opens them itself."""
        limits = [None if region.mask is None else region.mask.limit for region in self.regions]
        regions = [replace(region, mask=None) for region in self.regions]
        return {
            **self.__dict__,
            "cases": [case.case_id for case in self.cases],
            "regions": list(zip(regions, limits, strict=True)),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.cases = [read_case(self.store, case_id) for case_id in state["cases"]]
        self.regions = [
            region
            if limit is None or case.ctv_distance is None
            else replace(region, mask=SearchMask(case.ctv_distance, limit))
            for case, (region, limit) in zip(self.cases, state["regions"], strict=True)
        ]

    def __len__(self) -> int:
        return self.stage.iterations

    def __getitem__(self, step: int) -> dict[str, Any]:
        return self.part(step, 0, 1)

    def part(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """Slots ``rank, rank + world, ...`` of item ``step``, exactly as they are in the whole item.

        Args:
            step: number of the batch.
            rank: of the process, from 0.
            world: number of processes that share the batch.
        """
        refs = self._draw(np.random.default_rng((*self.seed, step)))
        slots = range(rank, len(refs), world)
        size = self.plan.detector3d.patch_size
        images = shared_zeros((len(slots), self.plan.channels(self.stage), *size))
        loaded = [
            self._load(step, slot, refs[slot], image) for slot, image in zip(slots, images, strict=True)
        ]
        return {
            "images": normalised(images, self.plan.detector3d),
            "targets": [target for target, _ in loaded],
            "slices": [name for _, name in loaded],
            "slots": list(slots),
        }

    def _draw(self, rng: np.random.Generator) -> list[PatchRef]:
        wanted = max(1, round(self.batch_size * self.plan.positive_fraction))
        positive = [self.positive[i] for i in rng.integers(len(self.positive), size=wanted)]
        others = rng.integers(len(self.cases), size=self.batch_size - wanted)
        return positive + [PatchRef(case, None) for case in others.tolist()]

    def _load(self, step: int, slot: int, ref: PatchRef, out: Tensor) -> tuple[dict[str, Tensor], str]:
        """Write the patch into ``out`` ``[C, z, y, x]``, which holds zeros; gives its target and name."""
        # a spawn key, because entropy padded with zeros would give slot 0 the stream of the step itself
        seed = np.random.SeedSequence((*self.seed, step), spawn_key=(slot,))
        rng = np.random.default_rng(seed)
        draw = draw_augmentation(self.plan.augmentation, rng)
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
        channels = box_channels(case.arrays, self.sources, box, kept)
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
    if case.instances is None:
        raise UserError(f"case {case.case_id} was preprocessed without labels", remedy="Run nndet_prep")
    instances = np.asarray(case.instances[box_slices(box)])
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
