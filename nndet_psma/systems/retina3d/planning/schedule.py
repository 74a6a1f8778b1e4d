"""Length, rates and augmentation of the training on 3D patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nndet_psma.artifacts.detector_plan import Augmentation
from nndet_psma.artifacts.plan import Target
from nndet_psma.planners.short_training import LIGHT, StageSchedule

NNDETECTION_BATCH = 4
_NNDETECTION_STEPS = 125_000  # 50 epochs of 2500 batches
_NNDETECTION_WARMUP = 4000
_NNDETECTION_RATE = 0.01
_FULL_LESIONS, _LEAST_SHARE = 1000, 0.1
_DECAYS = (0.7, 0.9)
_CPU_STEPS, _CPU_RATE = 400, 0.001

PATCHES = Augmentation(
    scale=(0.7, 1.4),
    rotation_degrees=30.0,
    flip_probability=0.5,
    blur_probability=0.2,
    blur_sigma=1.0,
    brightness=0.25,
    noise_std=0.1,
    shift_pixels=0.0,
)
LIGHT_PATCHES = Augmentation(**{**vars(LIGHT), "shift_pixels": 0.0})


@dataclass(frozen=True)
class PatchSchedule:
    """Schedule of the one stage, its optimiser, and why."""

    stage: StageSchedule
    optimizer: Literal["sgd", "adamw"]
    reason: str


def patch_schedule(
    target: Target, lesions: int, batch: int, factor: float, *, full: bool = False
) -> PatchSchedule:
    """Schedule for a machine and a data set.

    GPU: nnDetection's 50 epochs of 2500 batches of 4 patches, SGD at 0.01 after a warm-up of 4000 steps, at equal
    patches and with the rate in proportion to the batch; plain momentum where nnDetection takes Nesterov's. Its
    polynomial decay becomes two falls to a tenth, after 70 and 90 % of the steps: that decay, too, has fallen to a
    third at 70 % and to an eighth at 90 %. nnDetection's length suits about a thousand lesions (LUNA16 has 1186);
    fewer take fewer steps in proportion, a tenth at least.

    CPU: a fixed small number of steps from scratch with AdamW, as for slices.

    Args:
        target: the machine.
        lesions: in all training cases.
        batch: patches per step.
        factor: multiplies the steps (``plan_cfg.iterations_factor``).
        full: nnDetection's number of patches, whatever the data and the machine.
    """
    if target.device == "cpu" and not full:
        reason = f"CPU: a fixed budget of {_CPU_STEPS} steps from scratch with AdamW"
        return PatchSchedule(_stage(_CPU_STEPS, _CPU_RATE, factor), "adamw", reason)
    share = 1.0 if full else min(1.0, max(_LEAST_SHARE, lesions / _FULL_LESIONS))
    steps = round(_NNDETECTION_STEPS * NNDETECTION_BATCH / batch * share)
    rate = _NNDETECTION_RATE * batch / NNDETECTION_BATCH
    reason = f"nnDetection's {_NNDETECTION_STEPS} steps of {NNDETECTION_BATCH} patches at batch {batch}"
    reason += "" if full else f" and {lesions} lesions: {share:.0%} of its patches"
    return PatchSchedule(_stage(steps, rate, factor), "sgd", reason)


def _stage(steps: int, rate: float, factor: float) -> StageSchedule:
    steps = max(0, round(steps * factor))
    return StageSchedule(
        steps, rate, [round(steps * d) for d in _DECAYS], min(_NNDETECTION_WARMUP, steps // 10)
    )


def patch_augmentation(
    wanted: Literal["auto", "paper", "light"], target: Target
) -> tuple[Augmentation, str, str]:
    """Augmentation, rule and evidence; "paper" is nnDetection's.

    Source of ``PATCHES``: nnDetection's and nnU-Net's resizing by 0.7 to 1.4, rotation by 30 degrees, blur, brightness
    and noise. They turn and mirror about every axis; here patches turn in the axial plane and left and right change
    places, for the pelvis has an up and a front. ``LIGHT_PATCHES``: that of slices for short schedules, without shifts,
    since patches are placed at random.
    """
    if wanted == "paper" or (wanted == "auto" and target.device == "gpu"):
        return (
            PATCHES,
            "patch_schedule.PATCHES: nnDetection's ranges",
            "resized by 0.7 to 1.4, turned by up to 30 degrees in the plane, left and right mirrored",
        )
    return (
        LIGHT_PATCHES,
        "patch_schedule.LIGHT_PATCHES: short schedules",
        "rotation 15 degrees, resize 0.9-1.1",
    )
