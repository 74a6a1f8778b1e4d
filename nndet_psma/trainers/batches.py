"""Batches from the store: batch number ``i`` depends on (seed, i) alone, so training resumes exactly."""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.core.errors import UserError
from nndet_psma.preprocess.region import SearchMask, stage_region
from nndet_psma.preprocess.store import read_case
from nndet_psma.preprocess.windows import channel_sources, normalised
from nndet_psma.trainers.augmentation.draw import AugmentationDraw, draw_augmentation
from nndet_psma.trainers.registry import P

R = TypeVar("R")


class StoreBatches(Dataset[dict[str, Any]], ABC, Generic[P, R]):
    """Item ``i`` is the whole batch of optimiser step ``i``.

    A batch is ``{"images": [B, C, *size] float32, "targets": list of dictionaries of tensors, "slices": list of names,
    "slots": place of every image in the whole batch}``. Each slot has its own random stream, so a process can load its
    :meth:`part` alone. ``R`` is what a slot shows: each system draws its own, and loads it.

    Args:
        store: folder of preprocessed cases.
        plan: windows, sampling, augmentation.
        stage: region and windows.
        case_ids: training cases.
        batch_size: images per step.
        seed: of sampling and augmentation.
        size: of an image.
        normal: mean and standard deviation of the channels in [0, 1], taken off in the end.
    """

    def __init__(
        self,
        store: Path,
        plan: P,
        stage: Stage,
        case_ids: list[str],
        batch_size: int,
        seed: int,
        *,
        size: tuple[int, ...],
        normal: tuple[float, float],
    ) -> None:
        self.store, self.plan, self.stage, self.batch_size = store, plan, stage, batch_size
        self.size, self.normal = size, normal
        # stages share the plan's seed but must not see the same draws
        self.seed = (seed, zlib.crc32(stage.name.encode()))
        self.sources = channel_sources(plan, stage)
        self.cases = [read_case(store, case_id) for case_id in case_ids]
        self.regions = [stage_region(case, plan, stage) for case in self.cases]

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
        images = shared_zeros((len(slots), self.plan.channels(self.stage), *self.size))
        loaded = []
        for slot, image in zip(slots, images, strict=True):
            # a spawn key, because entropy padded with zeros would give slot 0 the stream of the step itself
            rng = np.random.default_rng(np.random.SeedSequence((*self.seed, step), spawn_key=(slot,)))
            draw = draw_augmentation(self.plan.augmentation, rng)
            loaded.append(self._load(refs[slot], draw, rng, image))
        return {
            "images": normalised(images, *self.normal),
            "targets": [target for target, _ in loaded],
            "slices": [name for _, name in loaded],
            "slots": list(slots),
        }

    @abstractmethod
    def _draw(self, rng: np.random.Generator) -> Sequence[R]:
        """What the slots of a batch show."""

    @abstractmethod
    def _load(
        self, ref: R, draw: AugmentationDraw, rng: np.random.Generator, out: Tensor
    ) -> tuple[dict[str, Tensor], str]:
        """Write the image into ``out`` ``[C, *size]``, which holds zeros; gives its target and name.

        Args:
            ref: what is shown.
            draw: how it is changed.
            rng: of the slot, for what else is drawn.
            out: channels in [0, 1].
        """

    def _check_lesions(self, positive: Sequence[R]) -> None:
        """UserError where no slot can show a lesion."""
        if not positive:
            raise UserError(
                f"none of the {len(self.cases)} training cases has a lesion in the region of stage "
                f"'{self.stage.name}'",
                remedy="Check the folds (splits.json) and the CTV margin",
            )


def shared_zeros(shape: tuple[int, ...]) -> Tensor:
    """Zeros; in a loader's worker where the trainer's process can see them, so that they need not be copied there."""
    if get_worker_info() is None:
        return torch.zeros(shape)
    shared = torch.UntypedStorage._new_shared(
        4 * math.prod(shape)
    )  # as torch's own collation; fresh pages are zero
    zeros: Tensor = torch.empty(0).set_(shared, 0, shape)  # type: ignore[call-overload]
    return zeros
