"""Batches of training slices: batch number ``i`` depends on (seed, i) alone, so training resumes exactly."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from nndet_psma.artifacts.plan import Plan, Stage
from nndet_psma.core.boxes import boxes_from_instances, to_torchvision
from nndet_psma.core.errors import UserError
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.region import Region, stage_region
from nndet_psma.preprocess.store import read_case
from nndet_psma.preprocess.warp import PlaneMap, warp
from nndet_psma.preprocess.windows import channel_sources, slice_channels
from nndet_psma.trainers.augmentation import augment_intensity, augmented_map, draw_augmentation

_MIN_SIDE_PIXELS = 2.0  # a thinner box is what rotation or the border left of a lesion


@dataclass(frozen=True)
class SliceRef:
    """An axial slice of a training case."""

    case: int
    z: int


class SliceBatches(Dataset[dict[str, Any]]):
    """Item ``i`` is the whole batch of optimiser step ``i``.

    A batch is ``{"images": [B, C, H, W] float32, "targets": list of {"boxes" [N, 4] torchvision order, "labels" [N]
    from 1, "masks" [N, H, W] when the mask branch is on}, "slices": list of "case:z"}``.

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
        plan: Plan,
        stage: Stage,
        case_ids: list[str],
        batch_size: int,
        seed: int,
        hard: Sequence[str] = (),
    ) -> None:
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
                (positive if _visible_instances(case, region, z).any() else negative).append(
                    SliceRef(index, z)
                )
        return positive, negative

    def __len__(self) -> int:
        return self.stage.iterations

    def __getitem__(self, step: int) -> dict[str, Any]:
        rng = np.random.default_rng((*self.seed, step))
        refs = self._draw_slices(rng)
        items = [self._load(ref, rng) for ref in refs]
        return {
            "images": torch.stack([image for image, _ in items]),
            "targets": [target for _, target in items],
            "slices": [self._name(ref) for ref in refs],
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

    def _load(self, ref: SliceRef, rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        case, region = self.cases[ref.case], self.regions[ref.case]
        draw = draw_augmentation(self.plan.augmentation, rng)
        mapping = augmented_map(draw, region.centre, self._scale, self._size)
        mask = None if region.mask is None else region.mask[ref.z]
        channels = slice_channels(case.arrays, self.sources, ref.z, self.plan.neighbours, mask)
        image = augment_intensity(warp(channels, mapping), draw, self.plan.augmentation)
        # smoothing and noise must not reach what is masked away or padding: a prediction sees exact zeros there
        seen = np.ones(channels.shape[1:]) if mask is None else mask
        image = image * (warp(seen[None].astype(np.float32), mapping) > 0)
        detector = self.plan.detector
        return (image - detector.input_mean) / detector.input_std, self._target(case, region, ref.z, mapping)

    def _target(self, case: PreparedCase, region: Region, z: int, mapping: PlaneMap) -> dict[str, Tensor]:
        """Boxes taken from the transformed instance mask, so that they fit after rotation."""
        instances = _visible_instances(case, region, z).astype(np.float32)
        warped = warp(instances[None], mapping, nearest=True)[0].numpy().astype(np.int64)
        ids, boxes = boxes_from_instances(warped)
        keep = ((boxes[:, 2:] - boxes[:, :2]) >= _MIN_SIDE_PIXELS).all(axis=1)
        ids, boxes = ids[keep], boxes[keep]
        target = {
            "boxes": torch.from_numpy(to_torchvision(boxes)).float(),
            "labels": torch.tensor([case.classes[int(i)] + 1 for i in ids], dtype=torch.int64),
        }
        if self.plan.detector.mask_branch:
            target["masks"] = torch.from_numpy(warped[None] == ids[:, None, None]).to(torch.uint8)
        return target


def _visible_instances(case: PreparedCase, region: Region, z: int) -> NDArray[np.int16]:
    """Instance ids of slice ``z``; what the region masks away cannot be learnt and is dropped."""
    if case.instances is None:
        raise UserError(f"case {case.case_id} was preprocessed without labels", remedy="Run nndet_prep")
    return case.instances[z] if region.mask is None else case.instances[z] * region.mask[z]
