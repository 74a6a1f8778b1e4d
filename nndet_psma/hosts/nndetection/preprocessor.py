"""Cases for nnDetection: cropped to the search region, seen through HU windows, with neighbouring slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from nndet.preprocessing.preprocessor import GenericPreprocessor
from numpy.typing import NDArray

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.body import body_mask, nonzero_mask
from nndet_psma.hosts.nndetection.channels import Recipe
from nndet_psma.preprocess.distance import UNIT_MM, reach_mm, signed_distance
from nndet_psma.preprocess.grid import mask_box
from nndet_psma.preprocess.windows import channel_sources, slice_channels

Volume = NDArray[np.float32]
Spacing = tuple[float, float, float]


class PSMAPreprocessor(GenericPreprocessor):
    """nnDetection's preprocessor with our search region, windows and neighbours.

    Everything happens in ``apply_process``, which nnDetection calls for training and for test cases alike.

    Args:
        recipe: our plan and the voter whose windows become channels.
        generic: what nnDetection's preprocessor takes.
    """

    DATA_ID = "PSMA"

    def __init__(self, recipe: Recipe, **generic: Any) -> None:
        super().__init__(**generic)
        self.recipe = recipe

    def apply_process(
        self,
        data: NDArray[Any],
        target_spacing: Sequence[float],
        properties: dict[str, Any],
        seg: NDArray[Any],
    ) -> tuple[Volume, NDArray[Any], dict[str, Any]]:
        """Crop to the search region, resample, make channels.

        ``crop_bbox`` and ``size_after_cropping`` then tell of both crops, and ``spacing_after_resampling`` is the exact
        one: nnDetection resamples to whole voxels but would restore boxes with the spacing it had wished for.

        Args:
            data: ``[modalities, z, y, x]`` of the raw task, cropped by nnDetection to what is not zero.
            target_spacing: mm (z, y, x).
            properties: of the case; changed in place.
            seg: ``[1, z, y, x]`` instance ids, -1 where every modality is 0.

        Returns:
            Channels ``[C + 2, z, y, x]`` (see :mod:`nndet_psma.hosts.nndetection.channels`), ids with -1 outside the
            search region, and the properties.

        Raises:
            UserError: the CTV is empty.
        """
        spacing = _triple(properties["original_spacing"])
        volumes, distance = self._split(data, spacing)
        box = self._search_box(volumes, distance, spacing)
        _note_crop(properties, box)
        around = tuple(slice(first, end) for first, end in zip(box[:3], box[3:], strict=True))
        names = list(volumes)
        cropped = np.stack([volumes[name][around] for name in names] + [distance[around]])
        stacked, seg = self._resampled(cropped, seg[(slice(None), *around)], target_spacing, properties)
        arrays = dict(zip(names, stacked, strict=False))
        return self._channels(arrays, stacked[-1], seg), seg, properties

    def _split(self, data: NDArray[Any], spacing: Spacing) -> tuple[dict[str, Volume], Volume]:
        """Images by modality, in the units of our store, and the signed distance (mm) to the CTV (0 without)."""
        plan = self.recipe.plan
        volumes = {
            name: data[int(index)].astype(np.float32)
            for index, name in plan.modalities.items()
            if int(index) != plan.ctv_modality
        }
        if plan.zscored:
            body = self._body(volumes, spacing)
            volumes |= {name: _zscored(volumes[name], body) for name in plan.zscored}
        if plan.ctv_modality is None:
            return volumes, np.zeros(data.shape[1:], dtype=np.float32)
        mask = data[plan.ctv_modality] > 0.5
        if not mask.any():
            raise UserError(
                "the CTV of a case is empty",
                remedy="Run nndet_psma check, and contour the CTV or leave the case out",
            )
        reach = reach_mm(plan.margin_mm)
        hundredths = signed_distance(mask, spacing, reach)
        # a step from the reach to "beyond" would ring when it is resampled
        return volumes, np.minimum(hundredths.astype(np.float32) * np.float32(UNIT_MM), np.float32(reach))

    def _search_box(
        self, volumes: dict[str, Volume], distance: Volume, spacing: Spacing
    ) -> NDArray[np.int64]:
        """Box of what the network may see, in voxels of ``distance``."""
        plan = self.recipe.plan
        neighbours_mm = (
            plan.neighbours * plan.spacing[0]
        )  # slices beyond the region are context of its outermost ones
        if plan.ctv_modality is not None:
            found = mask_box(distance <= plan.margin_mm)
            margins = (neighbours_mm, 0.0, 0.0)
        else:
            found = mask_box(self._body(volumes, spacing))
            margins = (np.inf, plan.body_margin_mm, plan.body_margin_mm)  # every axial slice is kept
        whole = np.array([0, 0, 0, *distance.shape])
        return whole if found is None else _grown(found, margins, spacing, distance.shape)

    def _body(self, volumes: dict[str, Volume], spacing: Spacing) -> NDArray[np.bool_]:
        """The body in the CT, else what is not zero in the first modality."""
        name = self.recipe.plan.ct_name
        return (
            nonzero_mask(next(iter(volumes.values()))) if name is None else body_mask(volumes[name], spacing)
        )

    def _resampled(
        self, data: Volume, seg: NDArray[Any], target_spacing: Sequence[float], properties: dict[str, Any]
    ) -> tuple[Volume, NDArray[Any]]:
        data, seg, own, wanted, _ = self.transpose(data, seg, properties["original_spacing"], target_spacing)
        before = np.array(data.shape[1:])
        data, seg, _ = self.resample(data, seg, own, wanted)
        seg[seg < -1] = 0
        after = np.array(data.shape[1:])
        properties["size_after_resampling"] = data.shape[1:]
        properties["spacing_after_resampling"] = np.asarray(own) * before / after
        return data, seg

    def _channels(self, arrays: dict[str, Volume], distance: Volume, seg: NDArray[Any]) -> Volume:
        """Channels of every slice as our engine makes them, then the evidence; marks the outside in ``seg``."""
        plan = self.recipe.plan
        sources = channel_sources(plan, self.recipe.stage)
        mask = distance <= plan.margin_mm if plan.ctv_modality is not None else None
        depth = len(distance)
        made = np.empty((self.recipe.channels + 2, *distance.shape), dtype=np.float32)
        for z in range(depth):
            kept = None if mask is None else mask[z]
            made[:-2, z] = slice_channels(arrays, sources, z, plan.neighbours, kept)
        made[-2] = arrays[plan.ct_name] if plan.ct_name is not None else np.nan
        made[-1] = np.maximum(distance, 0.0)
        if mask is not None:
            seg[0][~mask] = -1
        return made


def _zscored(volume: Volume, body: NDArray[np.bool_]) -> Volume:
    """Standard deviations from the mean of the body's voxels, as in our store."""
    values = volume[body] if body.any() else volume
    mean, std = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    return (volume - np.float32(mean)) / np.float32(std or 1.0)


def _grown(
    box: NDArray[np.int64], margins_mm: Spacing, spacing: Spacing, shape: Sequence[int]
) -> NDArray[np.int64]:
    """``box`` grown by margins (mm, z y x) to whole voxels, within the image."""
    size = np.array(shape, dtype=np.int64)
    grow = np.minimum(np.ceil(np.array(margins_mm) / np.array(spacing)), size).astype(np.int64)
    return np.concatenate([np.maximum(box[:3] - grow, 0), np.minimum(box[3:] + grow, size)])


def _note_crop(properties: dict[str, Any], box: NDArray[np.int64]) -> None:
    corners = [int(lower) for lower, _ in properties["crop_bbox"]]
    properties["crop_bbox"] = [
        (corner + int(box[axis]), corner + int(box[axis + 3])) for axis, corner in enumerate(corners)
    ]
    properties["size_after_cropping"] = tuple(int(n) for n in box[3:] - box[:3])


def _triple(values: Sequence[float]) -> Spacing:
    z, y, x = (float(value) for value in values)
    return z, y, x
