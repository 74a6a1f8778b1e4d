"""From a stored crop to the channels that a network sees: slices or volume, turned and mirrored or as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nndet_psma.artifacts.classifier_plan import ClassifierPlan, CropAugmentation, CropPlan
from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.preprocess.crops import INSIDE
from nndet_psma.preprocess.windows import apply_window

Array = NDArray[np.float32]


@dataclass(frozen=True)
class CropDraw:
    """One draw of all random parameters; enough to replay the transform. A ``zoom`` of 2 halves an object."""

    rotation_degrees: float = 0.0
    flip: tuple[bool, bool, bool] = (False, False, False)
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    brightness: float = 1.0
    zoom: float = 1.0

    @property
    def moves(self) -> bool:
        """Whether voxels move."""
        return self.rotation_degrees != 0 or any(self.flip) or any(self.shift) or self.zoom != 1


STILL = CropDraw()
"""The crop as it is."""


def draw_crop(plan: CropAugmentation, rng: np.random.Generator) -> CropDraw:
    """Draw the parameters of one crop."""
    rotation = float(rng.uniform(-plan.rotation_degrees, plan.rotation_degrees))
    z, y, x = (bool(rng.random() < 0.5) and axis in plan.flip for axis in "zyx")
    dz, dy, dx = (float(v) for v in rng.uniform(-plan.shift_voxels, plan.shift_voxels, 3))
    return CropDraw(
        rotation, (z, y, x), (dz, dy, dx), float(rng.uniform(1 - plan.brightness, 1 + plan.brightness))
    )


def crop_channels(
    ct: NDArray[np.int16],
    codes: NDArray[np.uint8],
    plan: ClassifierPlan,
    stage: Stage,
    draw: CropDraw = STILL,
) -> Array:
    """The input of a network.

    Args:
        ct: ``[z, y, x]`` stored crop, HU.
        codes: ``[z, y, x]`` of the same.
        plan: what is seen of it.
        stage: names its windows; none for a network that sees the mask only.
        draw: how it is moved and brightened.

    Returns:
        ``[C, *image_size]`` in [0, 1]: windows in their order, then the mask, plane by plane in each.
    """
    crop = plan.crop
    inside = (_seen(codes, crop, draw, order=0) & INSIDE).astype(np.float32)
    channels = []
    if stage.windows:
        hu = _seen(ct, crop, draw, order=1)
        limits = {window.name: window for window in plan.windows}
        for name in stage.windows:
            window = limits[name]
            channel = apply_window(hu, window.lower, window.upper)
            if crop.input == "ct*mask":
                outside = np.array([window.lower if crop.outside_hu is None else crop.outside_hu])
                fill = float(apply_window(outside, window.lower, window.upper)[0])
                channel = np.where(inside > 0, channel, np.float32(fill))
            channels.append(np.clip(channel * np.float32(draw.brightness), 0, 1))
    if plan.channels(stage) > len(channels) * crop.planes:
        channels.append(inside)
    stacked: Array = np.concatenate(channels).astype(np.float32, copy=False)
    return stacked


def _seen(stored: NDArray[Any], crop: CropPlan, draw: CropDraw, *, order: int) -> NDArray[Any]:
    """``[planes, *image_size]``: what the network sees of a stored array; linear (1) or of the nearest voxel (0)."""
    middles = [(size - 1) / 2 for size in stored.shape]
    if not draw.moves:
        indices = (
            [np.rint(a + m).astype(int) for a, m in zip(each, middles, strict=True)] for each in _lines(crop)
        )
        blocks = [stored[np.ix_(*index)] for index in indices]
        return np.stack([plane.reshape(crop.image_size) for plane in _split(blocks, crop)])
    found = []
    for lines in _lines(crop):
        points = _moved(np.meshgrid(*lines, indexing="ij"), draw)
        coordinates = np.stack([axis + middle for axis, middle in zip(points, middles, strict=True)])
        kind = np.float32 if order else stored.dtype
        found.append(ndimage.map_coordinates(stored, coordinates, kind, order, mode="nearest"))
    return np.stack([plane.reshape(crop.image_size) for plane in _split(found, crop)])


def _lines(crop: CropPlan) -> list[list[NDArray[Any]]]:
    """Coordinates (z, y, x) relative to the middle of each block that is seen, one array per axis."""
    z, y, x = (np.arange(size) - (size - 1) / 2 for size in crop.size)
    if crop.dimension != "2.5d":
        return [[z, y, x]]
    # an even cube has no central slice: the one just behind the middle
    middle = np.array([0.0 if crop.size[0] % 2 else 0.5])
    return [[middle, y, x], [z, middle, x], [z, y, middle]]


def _split(blocks: list[NDArray[Any]], crop: CropPlan) -> list[NDArray[Any]]:
    """Planes of the blocks: slices of a "2d" block, else the blocks themselves."""
    return list(blocks[0]) if crop.dimension == "2d" else blocks


def _moved(points: Sequence[NDArray[np.float64]], draw: CropDraw) -> list[NDArray[np.float64]]:
    """Where in the stored crop the seen points lie: turned about z, mirrored, shifted."""
    z, y, x = points
    angle = np.deg2rad(draw.rotation_degrees)
    turned = [z, np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x]
    return [
        (-axis if flip else axis) * draw.zoom + shift
        for axis, flip, shift in zip(turned, draw.flip, draw.shift, strict=True)
    ]
