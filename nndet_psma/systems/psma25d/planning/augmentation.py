"""Augmentation by machine: the paper's where there is time to learn it, a light one for short schedules."""

from __future__ import annotations

from typing import Literal

from nndet_psma.artifacts.detector_plan import Augmentation
from nndet_psma.artifacts.plan import Target
from nndet_psma.planners.short_training import LIGHT

PAPER = Augmentation(
    scale=(0.89, 1.11),
    rotation_degrees=180.0,
    flip_probability=0.5,
    blur_probability=0.5,
    blur_sigma=1.0,
    brightness=0.2,
    noise_std=0.0,
    shift_pixels=0.0,
)


def choose_augmentation(
    wanted: Literal["auto", "paper", "light"], target: Target
) -> tuple[Augmentation, str, str]:
    """Augmentation, rule and evidence.

    Source of ``PAPER``: Xu et al. 2023, "Data preprocessing": largest side 640 to 800 (a factor of 0.89 to 1.11 round
    720), mirrored with probability 0.5, rotated by 0 to 180 degrees, smoothed (kernel 5, sigma 1), brightness, whose
    range is not given: 0.2 is our choice. ``LIGHT``: our choice for schedules of a few hundred steps from scratch.
    """
    if wanted == "paper" or (wanted == "auto" and target.device == "gpu"):
        return (
            PAPER,
            "augmentation.PAPER: Xu et al. 2023, data preprocessing",
            "largest side 640-800 = factor 0.89-1.11",
        )
    return LIGHT, "augmentation.LIGHT: short schedules", "rotation 15 instead of the paper's 180 degrees"
