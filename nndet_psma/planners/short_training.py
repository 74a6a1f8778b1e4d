"""Length of a stage, and the augmentation of trainings that are too short to learn a strong one."""

from __future__ import annotations

from typing import NamedTuple

from nndet_psma.artifacts.detector_plan import Augmentation

LIGHT = Augmentation(
    scale=(0.9, 1.1),
    rotation_degrees=15.0,
    flip_probability=0.5,
    blur_probability=0.1,
    blur_sigma=1.0,
    brightness=0.1,
    noise_std=0.02,
    shift_pixels=6.0,
)


class StageSchedule(NamedTuple):
    """Iterations, peak learning rate, milestones and warm-up of one stage, in the order of ``Stage``'s fields."""

    iterations: int
    learning_rate: float
    milestones: list[int]
    warmup: int
