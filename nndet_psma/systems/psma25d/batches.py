"""Batches of training slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.region import Region
from nndet_psma.preprocess.warp import PixelBox, PlaneMap, warp
from nndet_psma.preprocess.windows import seen_arrays, slice_channels
from nndet_psma.systems.psma25d.plan import PSMA25DPlan
from nndet_psma.systems.psma25d.targets import slice_target
from nndet_psma.trainers.augmentation.draw import (
    AugmentationDraw,
    augment_intensity,
    augmented_map,
    smoothing_margin,
)
from nndet_psma.trainers.batches import StoreBatches


@dataclass(frozen=True)
class SliceRef:
    """An axial slice of a training case."""

    case: int
    z: int


class SliceBatches(StoreBatches[PSMA25DPlan, SliceRef]):
    """Slices with and without lesions in the planned share.

    Targets are ``{"boxes" [N, 4] torchvision order, "labels" [N] from 1, "masks" [N, H, W] when the mask branch is
    on}``, names are "case:z".

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
        detector = plan.detector
        search = stage.region == "search"
        self.scale = detector.scale if search else detector.body_scale
        self.plane = detector.input_size if search else detector.body_input_size
        normal = (detector.input_mean, detector.input_std)
        super().__init__(store, plan, stage, case_ids, batch_size, seed, size=self.plane, normal=normal)
        self.positive, self.negative = self._index()
        names = set(hard)
        self.hard = [ref for ref in self.negative if self._name(ref) in names]
        self._check_lesions(self.positive)
        self.shares = self._shares()

    def _index(self) -> tuple[list[SliceRef], list[SliceRef]]:
        positive: list[SliceRef] = []
        negative: list[SliceRef] = []
        for index, (case, region) in enumerate(zip(self.cases, self.regions, strict=True)):
            instances = case.labelled
            for z in region.slices.tolist():
                found = instances[z].any() and _visible_instances(case, region, z)[0].any()
                (positive if found else negative).append(SliceRef(index, z))
        return positive, negative

    def _shares(self) -> NDArray[np.float64] | None:
        """Probability of each slice with a lesion; None for all alike.

        A lesion is drawn, every one or every case's alike, then one of its slices.
        """
        if self.plan.detector.positive_draw == "slices":
            return None
        lesions: dict[tuple[int, int], list[int]] = {}
        for number, ref in enumerate(self.positive):
            visible, _ = _visible_instances(self.cases[ref.case], self.regions[ref.case], ref.z)
            for instance in np.unique(visible[visible > 0]).tolist():
                lesions.setdefault((ref.case, instance), []).append(number)
        by_case = Counter(case for case, _ in lesions)
        shares = np.zeros(len(self.positive))
        for (case, _), slices in lesions.items():
            weight = 1.0 if self.plan.detector.positive_draw == "lesions" else 1 / by_case[case]
            shares[slices] += weight / len(slices)
        return np.asarray(shares / shares.sum())

    def _name(self, ref: SliceRef) -> str:
        return f"{self.cases[ref.case].case_id}:{ref.z}"

    def _draw(self, rng: np.random.Generator) -> list[SliceRef]:
        wanted = (
            self.batch_size if not self.negative else round(self.batch_size * self.plan.positive_fraction)
        )
        wanted = max(1, wanted)
        count = len(self.positive)
        drawn = (
            rng.integers(count, size=wanted)
            if self.shares is None
            else rng.choice(count, wanted, p=self.shares)
        )
        positive = [self.positive[i] for i in drawn]
        rest = self.batch_size - wanted
        difficult = round(rest * self.plan.hard_negative_fraction) if self.hard else 0
        hard = [self.hard[i] for i in rng.integers(len(self.hard), size=difficult)] if difficult else []
        rest -= difficult
        negative = [self.negative[i] for i in rng.integers(len(self.negative), size=rest)] if rest else []
        return positive + hard + negative

    def _load(
        self, ref: SliceRef, draw: AugmentationDraw, rng: np.random.Generator, out: Tensor
    ) -> tuple[dict[str, Tensor], str]:
        case, region = self.cases[ref.case], self.regions[ref.case]
        mapping = augmented_map(draw, region.centre, self.scale, self.plane)
        seen, kept = region.seen(ref.z)
        y0, x0, y1, x1 = view = mapping.view(seen)
        if y0 < y1 and x0 < x1:
            shown = mapping.part(_grown(view, smoothing_margin(draw)))
            out[:, y0:y1, x0:x1] = self._image(case, ref.z, seen, kept, shown, draw)
        return self._target(case, region, ref.z, mapping), self._name(ref)

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
        channels = slice_channels(
            seen_arrays(case, self.sources), self.sources, z, self.plan.neighbours, None, box
        )
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

    def _target(self, case: PreparedCase, region: Region, z: int, mapping: PlaneMap) -> dict[str, Tensor]:
        instances, origin = _visible_instances(case, region, z)
        masks = self.plan.detector.mask_branch
        return slice_target(instances, case.classes, mapping.cropped(origin), masks=masks)


def _grown(box: PixelBox, margin: int) -> PixelBox:
    return box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin


def _visible_instances(
    case: PreparedCase, region: Region, z: int
) -> tuple[NDArray[np.int16], tuple[int, int]]:
    """Instance ids of slice ``z`` and the voxel (y, x) they begin at; what is masked away cannot be learnt."""
    (y0, x0, y1, x1), kept = region.seen(z)
    instances = case.labelled[z, y0:y1, x0:x1]
    return instances if kept is None else instances * kept, (y0, x0)
