"""Batches of crops: batch number ``i`` depends on (seed, i) alone, so training resumes exactly."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from nndet_psma.artifacts.classifier_plan import ClassifierPlan
from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.preprocess.crop_store import read_crops
from nndet_psma.trainers.batches import shared_zeros
from nndet_psma.trainers.classifier.sampling import Sampler
from nndet_psma.trainers.classifier.views import crop_channels, draw_crop


class CropBatches(Dataset[dict[str, Any]]):
    """Item ``i`` is the whole batch of optimiser step ``i``.

    A batch is ``{"images": [B, C, *size] float32, "labels": [B] int64, "slices": list of names, "slots": place of every
    image in the whole batch}``. Each slot has its own random stream, so a process can load its :meth:`part` alone.

    Args:
        store: folder of crops.
        plan: sampling and augmentation.
        stage: windows and number of steps.
        case_ids: training cases; objects of unknown class are left out.
        batch_size: crops per step.
        seed: of sampling and augmentation.

    Raises:
        UserError: a class has no training object, or stations cannot be balanced.
    """

    def __init__(
        self, store: Path, plan: ClassifierPlan, stage: Stage, case_ids: list[str], batch_size: int, seed: int
    ) -> None:
        self.plan, self.stage, self.batch_size = plan, stage, batch_size
        self.seed = (seed, zlib.crc32(stage.name.encode()))  # stages share the plan's seed, not the draws
        self.cases = [read_crops(store, case_id) for case_id in case_ids]
        self.refs = [
            (case, index, row)
            for case in self.cases
            for index, row in enumerate(case.rows)
            if row.label is not None
        ]
        labels = np.array([row.label for *_, row in self.refs], dtype=np.int64)
        self.sampler = Sampler(plan.sampling, labels, [row.station for *_, row in self.refs], plan.seed)

    def __len__(self) -> int:
        return self.stage.iterations

    def __getitem__(self, step: int) -> dict[str, Any]:
        return self.part(step, 0, 1)

    def part(self, step: int, rank: int, world: int) -> dict[str, Any]:
        """Slots ``rank, rank + world, ...`` of item ``step``, exactly as they are in the whole item."""
        drawn = self.sampler.draw(step, self.batch_size, np.random.default_rng((*self.seed, step)))
        slots = list(range(rank, len(drawn), world))
        images = shared_zeros((len(slots), self.plan.channels(self.stage), *self.plan.crop.image_size))
        labels, names = [], []
        for slot, image in zip(slots, images, strict=True):
            rng = np.random.default_rng(np.random.SeedSequence((*self.seed, step), spawn_key=(slot,)))
            case, index, row = self.refs[int(drawn[slot])]
            draw = draw_crop(self.plan.augmentation, rng)
            channels = crop_channels(case.ct[index], case.codes[index], self.plan, self.stage, draw)
            image.copy_(torch.from_numpy(channels).reshape(image.shape))
            labels.append(row.label)
            names.append(f"{row.case_id}:{row.object_id}")
        return {"images": images, "labels": torch.tensor(labels), "slices": names, "slots": slots}
