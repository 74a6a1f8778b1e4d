"""Batches of training slices: batch number ``i`` depends on (seed, i) alone, so training resumes exactly."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.core.errors import UserError
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.region import Region, SearchMask, stage_region
from nndet_psma.preprocess.store import read_case
from nndet_psma.preprocess.warp import PixelBox, PlaneMap, warp
from nndet_psma.preprocess.windows import channel_sources, slice_channels
from nndet_psma.systems.psma25d.plan import PSMA25DPlan
from nndet_psma.systems.psma25d.targets import slice_target
from nndet_psma.trainers.augmentation.draw import (
    AugmentationDraw,
    augment_intensity,
    augmented_map,
    draw_augmentation,
    smoothing_margin,
)


@dataclass(frozen=True)
class SliceRef:
    """An axial slice of a training case."""

    case: int
    z: int


class SliceBatches(Dataset[dict[str, Any]]):
    """Item ``i`` is the whole batch of optimiser step ``i``.

    A batch is ``{"images": [B, C, H, W] float32, "targets": list of {"boxes" [N, 4] torchvision order, "labels" [N]
    from 1, "masks" [N, H, W] when the mask branch is on}, "slices": list of "case:z", "slots": place of every slice in
    the whole batch}``. Each slot has its own random stream, so a process can load its :meth:`part` alone.

    Args:
        store: folder of preprocessed cases.
        plan: windows, sampling, augmentation, detector scale.
        stage: region and windows.
        case_ids: training cases.
        batch_size: slices per step.
        seed: of sampling and augmentation.
        hard: names ``case:z`` of slices without a lesion that are drawn in the planned share.

    Raises:
        UserError: none of the cases has a lesion in the stage's region.
    """

    def __init__(
        self,
        store: Path,
        plan: PSMA25DPlan,
        stage: Stage,
        case_ids: list[str],
        batch_size: int,
        seed: int,
        hard: Sequence[str] = (),
    ) -> None:
        self.store = store
        self.plan = plan
        self.stage = stage
        self.batch_size = batch_size
        # stages share the plan's seed but must not see the same draws
        self.seed = (seed, zlib.crc32(stage.name.encode()))
        self.sources = channel_sources(plan, stage)
        self.cases = [read_case(store, case_id) for case_id in case_ids]
        self.regions = [stage_region(case, plan, stage) for case in self.cases]
        self.positive, self.negative = self._index()
        names = set(hard)
        self.hard = [ref for ref in self.negative if self._name(ref) in names]
        if not self.positive:
            raise UserError(
                f"none of the {len(case_ids)} training cases has a lesion in the region of stage '{stage.name}'",
                remedy="Check the folds (splits.json) and the CTV margin",
            )

    def __getstate__(self) -> dict[str, Any]:
        """Without the arrays: a process that is spawned, not forked, opens them itself."""
        ids = [case.case_id for case in self.cases]
        regions = [replace(region, mask=None) for region in self.regions]
        limits = [None if region.mask is None else region.mask.limit for region in self.regions]
        return {**self.__dict__, "cases": ids, "regions": list(zip(regions, limits, strict=True))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.cases = [read_case(self.store, case_id) for case_id in state["cases"]]
        self.regions = [
            region
            if limit is None or case.ctv_distance is None
            else replace(region, mask=SearchMask(case.ctv_distance, limit))
            for case, (region, limit) in zip(self.cases, state["regions"], strict=True)
        ]

    @property
    def _scale(self) -> float:
        detector = self.plan.detector
        return detector.scale if self.stage.region == "search" else detector.body_scale

    @property
    def _size(self) -> tuple[int, int]:
        detector = self.plan.detector
        return detector.input_size if self.stage.region == "search" else detector.body_input_size

    def _index(self) -> tuple[list[SliceRef], list[SliceRef]]:
        positive: list[SliceRef] = []
        negative: list[SliceRef] = []
        for index, (case, region) in enumerate(zip(self.cases, self.regions, strict=True)):
            if case.instances is None:
                raise UserError(
                    f"case {case.case_id} was preprocessed without labels", remedy="Run nndet_prep"
                )
            for z in region.slices.tolist():
                found = case.instances[z].any() and _visible_instances(case, region, z)[0].any()
                (positive if found else negative).append(SliceRef(index, z))
        return positive, negative

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
        refs = self._draw_slices(np.random.default_rng((*self.seed, step)))
        slots = range(rank, len(refs), world)
        images = self._normalised(shared_zeros((len(slots), self.plan.channels(self.stage), *self._size)))
        return {
            "images": images,
            "targets": [
                self._load(step, slot, refs[slot], image) for slot, image in zip(slots, images, strict=True)
            ],
            "slices": [self._name(refs[slot]) for slot in slots],
            "slots": list(slots),
        }

    def _name(self, ref: SliceRef) -> str:
        return f"{self.cases[ref.case].case_id}:{ref.z}"

    def _draw_slices(self, rng: np.random.Generator) -> list[SliceRef]:
        wanted = (
            self.batch_size if not self.negative else round(self.batch_size * self.plan.positive_fraction)
        )
        wanted = max(1, wanted)
        positive = [self.positive[i] for i in rng.integers(len(self.positive), size=wanted)]
        rest = self.batch_size - wanted
        difficult = round(rest * self.plan.hard_negative_fraction) if self.hard else 0
        hard = [self.hard[i] for i in rng.integers(len(self.hard), size=difficult)] if difficult else []
        rest -= difficult
        negative = [self.negative[i] for i in rng.integers(len(self.negative), size=rest)] if rest else []
        return positive + hard + negative

    def _load(self, step: int, slot: int, ref: SliceRef, out: Tensor) -> dict[str, Tensor]:
        """Write the slice into ``out`` ``[C, H, W]``, which holds the value of nothing; gives its target."""
        case, region = self.cases[ref.case], self.regions[ref.case]
        # a spawn key, because entropy padded with zeros would give slot 0 the stream of the step itself
        seed = np.random.SeedSequence((*self.seed, step), spawn_key=(slot,))
        draw = draw_augmentation(self.plan.augmentation, np.random.default_rng(seed))
        mapping = augmented_map(draw, region.centre, self._scale, self._size)
        seen, kept = region.seen(ref.z)
        y0, x0, y1, x1 = view = mapping.view(seen)
        if y0 < y1 and x0 < x1:
            shown = mapping.part(_grown(view, smoothing_margin(draw)))
            image = self._image(case, ref.z, seen, kept, shown, draw)
            out[:, y0:y1, x0:x1] = self._normalised(image)
        return self._target(case, region, ref.z, mapping)

    def _image(
        self,
        case: PreparedCase,
        z: int,
        seen: PixelBox,
        kept: NDArray[np.bool_] | None,
        mapping: PlaneMap,
        draw: AugmentationDraw,
    ) -> Tensor:
        """Augmented channels of the part of slice ``z`` that ``mapping`` shows, its smoothing margin taken off.

        ``seen`` and ``kept`` are those of :meth:`Region.seen`.
        """
        box = y0, x0, y1, x1 = mapping.footprint(seen)
        channels = slice_channels(case.arrays, self.sources, z, self.plan.neighbours, None, box)
        if kept is None:
            kept = np.ones((y1 - y0, x1 - x0), dtype=bool)
        else:
            kept = kept[y0 - seen[0] : y1 - seen[0], x0 - seen[1] : x1 - seen[1]]
            channels *= kept
        rough = draw.blur or draw.noise_std > 0
        if rough:
            channels = np.concatenate([channels, kept[None].astype(np.float32)])
        warped = warp(channels, mapping.cropped((y0, x0)))
        if not rough:
            return augment_intensity(warped, draw, self.plan.augmentation)
        # smoothing and noise must not reach what is masked away or padding: a prediction sees exact zeros there
        image = augment_intensity(warped[:-1], draw, self.plan.augmentation)
        margin, (height, width) = smoothing_margin(draw), image.shape[1:]
        inside = warped[-1, margin : margin + height, margin : margin + width] > 0
        return image.masked_fill_(~inside, 0.0)

    def _normalised(self, image: Tensor) -> Tensor:
        detector = self.plan.detector
        if (detector.input_mean, detector.input_std) == (0.0, 1.0):
            return image
        return image.sub_(detector.input_mean).div_(detector.input_std)

    def _target(self, case: PreparedCase, region: Region, z: int, mapping: PlaneMap) -> dict[str, Tensor]:
        instances, origin = _visible_instances(case, region, z)
        masks = self.plan.detector.mask_branch
        return slice_target(instances, case.classes, mapping.cropped(origin), masks=masks)


def shared_zeros(shape: tuple[int, ...]) -> Tensor:
    """Zeros; in a loader's worker where the trainer's process can see them, so that they need not be copied there."""
    if get_worker_info() is None:
        return torch.zeros(shape)
    shared = torch.UntypedStorage._new_shared(
        4 * math.prod(shape)
    )  # as torch's own collation; fresh pages are zero
    zeros: Tensor = torch.empty(0).set_(shared, 0, shape)  # type: ignore[call-overload]
    return zeros


def _grown(box: PixelBox, margin: int) -> PixelBox:
    return box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin


def _visible_instances(
    case: PreparedCase, region: Region, z: int
) -> tuple[NDArray[np.int16], tuple[int, int]]:
    """Instance ids of slice ``z`` and the voxel (y, x) they begin at; what is masked away cannot be learnt."""
    if case.instances is None:
        raise UserError(f"case {case.case_id} was preprocessed without labels", remedy="Run nndet_prep")
    (y0, x0, y1, x1), kept = region.seen(z)
    instances = case.instances[z, y0:y1, x0:x1]
    return instances if kept is None else instances * kept, (y0, x0)
