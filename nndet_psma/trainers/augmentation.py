"""Random transforms of training slices: parameters are drawn first, then applied without chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from batchgenerators.augmentations.color_augmentations import augment_brightness_multiplicative
from batchgenerators.augmentations.noise_augmentations import augment_gaussian_blur
from torch import Tensor

from nndet_psma.artifacts.plan import Augmentation
from nndet_psma.preprocess.warp import PlaneMap, plane_map


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


def augment_intensity(image: Tensor, draw: AugmentationDraw, plan: Augmentation) -> Tensor:
    """Smoothing, brightness and noise of ``[C, H, W]`` channels in [0, 1]; the result stays in [0, 1].

    Noise and brightness act on the same draw in all channels, as they come from one scan.
    """
    array = image.numpy()
    if draw.blur:
        array = augment_gaussian_blur(array, (plan.blur_sigma, plan.blur_sigma), per_channel=False)
    brightness = (draw.brightness, draw.brightness)
    image = torch.from_numpy(augment_brightness_multiplicative(array, brightness, per_channel=False))
    if draw.noise_std > 0:
        generator = torch.Generator().manual_seed(draw.noise_seed)
        image = image + draw.noise_std * torch.randn(image.shape, generator=generator)
    return image.clamp(0, 1)
