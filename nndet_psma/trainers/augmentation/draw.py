"""Random transforms of training slices: parameters are drawn first, then applied without chance.

Those of Xu et al. 2023 ("Data preprocessing") with the numbers of the plan: random resizing of the largest side (a
uniform factor, 640 to 800 pixels round 720), left-right mirror, rotation by up to 180 degrees in either direction,
smoothing with a Gaussian kernel of 5 pixels, brightness; a small shift and additive noise are ours and off in the
paper's preset. The paper writes "gaussian noise (kernel = 5, sigma = 1)"; a kernel belongs to smoothing, so that is
what is done.

batchgeneratorsv2's transforms draw from NumPy's and torch's global state and move no boxes: a draw could neither be
repeated for (seed, step, image) nor tell, before reading, which part of the store it needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from batchgenerators.augmentations.color_augmentations import augment_brightness_multiplicative
from torch import Tensor

from nndet_psma.artifacts.detector_plan import Augmentation
from nndet_psma.preprocess.warp import PlaneMap, plane_map

_KERNEL_RADIUS = 2  # Xu et al. 2023: kernel = 5
_TILE_VALUES = 2**16  # values smoothed at a time, so that they stay in a core's cache: twice as fast


@dataclass(frozen=True)
class AugmentationDraw:
    """One draw of all random parameters; enough to replay the transform."""

    scale: float
    rotation_degrees: float
    flip: bool
    shift: tuple[float, float]
    blur: bool
    brightness: float
    noise_std: float
    noise_seed: int


def draw_augmentation(plan: Augmentation, rng: np.random.Generator) -> AugmentationDraw:
    """Draw the parameters of one slice."""
    return AugmentationDraw(
        scale=float(rng.uniform(*plan.scale)),
        rotation_degrees=float(rng.uniform(-plan.rotation_degrees, plan.rotation_degrees)),
        flip=bool(rng.random() < plan.flip_probability),
        shift=(
            float(rng.uniform(-plan.shift_pixels, plan.shift_pixels)),
            float(rng.uniform(-plan.shift_pixels, plan.shift_pixels)),
        ),
        blur=bool(rng.random() < plan.blur_probability),
        brightness=float(rng.uniform(1 - plan.brightness, 1 + plan.brightness)),
        noise_std=float(rng.uniform(0, plan.noise_std)),
        noise_seed=int(rng.integers(2**31)),
    )


def augmented_map(
    draw: AugmentationDraw, centre: tuple[float, float], scale: float, size: tuple[int, int]
) -> PlaneMap:
    """Geometry of the draw as one map from store to detector pixels."""
    return plane_map(
        centre,
        scale * draw.scale,
        size,
        rotation_degrees=draw.rotation_degrees,
        flip=draw.flip,
        shift=draw.shift,
    )


def smoothing_margin(draw: AugmentationDraw) -> int:
    """Pixels on each side that :func:`augment_intensity` takes off the image of this draw."""
    return _KERNEL_RADIUS if draw.blur else 0


def augment_intensity(image: Tensor, draw: AugmentationDraw, plan: Augmentation) -> Tensor:
    """Smoothing, brightness and noise of ``[C, H, W]`` channels in [0, 1]; the result stays in [0, 1].

    Smoothing looks at neighbours, so the image must reach :func:`smoothing_margin` pixels farther than the result: no
    border is made up. ``image`` may be overwritten. One draw serves all channels, as they come from one scan.
    """
    if draw.blur:
        image = smooth(image, plan.blur_sigma)
    brightness = (draw.brightness, draw.brightness)
    image = torch.from_numpy(augment_brightness_multiplicative(image.numpy(), brightness, per_channel=False))
    if draw.noise_std > 0:
        generator = torch.Generator().manual_seed(draw.noise_seed)
        image.add_(torch.randn(image.shape, generator=generator), alpha=draw.noise_std)
    return image.clamp_(0, 1)


def smooth(image: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing of ``[C, H + 4, W + 4]`` with a kernel of 5 x 5 pixels, ``[C, H, W]``.

    Args:
        image: with two pixels more on each side than the result.
        sigma: in pixels, above 0; the kernel is cut off at 5 pixels and sums to 1.
    """
    distances = torch.arange(_KERNEL_RADIUS + 1, dtype=torch.float64)
    kernel = torch.exp(-(distances**2) / (2 * sigma**2))
    weights: list[float] = (kernel / (2 * kernel.sum() - kernel[0])).tolist()
    channels, height, width = image.shape[0], *(side - 2 * _KERNEL_RADIUS for side in image.shape[1:])
    result = torch.empty((channels, height, width))
    rows = max(1, _TILE_VALUES // max(1, width))
    for channel, out in zip(image, result, strict=True):
        for start in range(0, height, rows):
            tile = out[start : start + rows]
            beneath = channel[start : start + len(tile) + 2 * _KERNEL_RADIUS]
            _filter(_filter(beneath, weights, 0, torch.empty((len(tile), image.shape[2]))), weights, 1, tile)
    return result


def _filter(values: Tensor, weights: list[float], axis: int, out: Tensor) -> Tensor:
    """One-dimensional symmetric filter into ``out``; ``weights`` from the centre outwards."""
    last, count = len(weights) - 1, out.shape[axis]
    torch.mul(values.narrow(axis, last, count), weights[0], out=out)
    for distance in range(1, last + 1):
        for start in (last - distance, last + distance):
            out.add_(values.narrow(axis, start, count), alpha=weights[distance])
    return out
