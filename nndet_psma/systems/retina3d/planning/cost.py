"""Seconds and memory of a training step on patches, and what to lower where it does not fit.

Seconds are the FLOPs of the planned layers over the speed of a device.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, prod
from typing import ClassVar

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.planners.training_memory import MemoryEstimate, Training
from nndet_psma.systems.retina3d.plan import Retina3DPlan
from nndet_psma.systems.retina3d.planning.layers import PatchNetwork, patch_flops
from nndet_psma.systems.retina3d.planning.memory import estimate_patch_memory
from nndet_psma.trainers.cost.devices import CPU_CORE_3D, Device
from nndet_psma.trainers.cost.stage_load import StageLoad

_ENCODER = "PlainConvEncoder"


def patch_step_seconds(
    network: PatchNetwork, voxels: int, images: int, device: Device, cores: int = 1
) -> float:
    """Seconds of a training step of ``images`` patches on one GPU, or on ``cores`` of a CPU."""
    seconds = patch_flops(network, voxels) / device.speed(cores)
    return device.step_seconds + images * (seconds + device.image_seconds)


@dataclass(frozen=True)
class PatchLoad(StageLoad):
    """Of patches seen by ``network``."""

    unit: ClassVar[str] = "patches"
    cpu: ClassVar[Device] = CPU_CORE_3D

    network: PatchNetwork

    def memory(self, images: int, training: Training, *, device: str = "gpu") -> MemoryEstimate:
        """By :func:`estimate_patch_memory`."""
        return estimate_patch_memory(self.network, prod(self.input_size), images, training, device=device)

    def flops(self) -> float:
        """By :func:`patch_flops`."""
        return patch_flops(self.network, prod(self.input_size))

    def step_seconds(self, images: int, device: Device, cores: int = 1) -> float:
        """By :func:`patch_step_seconds`."""
        return patch_step_seconds(self.network, prod(self.input_size), images, device, cores)


def stage_load(plan: Retina3DPlan, stage: Stage) -> PatchLoad:
    """What a patch of a stage asks of a machine in training."""
    detector = plan.detector3d
    network = PatchNetwork.of(detector, channels=plan.channels(stage), classes=len(plan.classes))
    return PatchLoad(_ENCODER, detector.patch_size, network)


def what_to_lower(
    plan: Retina3DPlan,
    stage: Stage,
    batch_size: int,
    training: Training,
    memory_gb: float,
    held_gb: float = 0.0,
) -> str:
    """A remedy for a full GPU: the batch that fits by the planner's estimate, or else a plan for this GPU.

    Args:
        plan: of the stage.
        stage: that did not fit.
        batch_size: patches per step of one GPU.
        training: what else takes memory; its ``gpus`` share a batch.
        memory_gb: memory of the GPU.
        held_gb: what other processes hold of it.
    """
    load, room = stage_load(plan, stage), memory_gb - held_gb
    fitting = [n for n in range(1, batch_size) if load.memory(n, training).total <= room]
    if fitting:
        gpus = training.gpus
        return f"Lower trainer_cfg.batch_size from {batch_size * gpus} to {fitting[-1] * gpus}"
    sides = " x ".join(str(side) for side in load.input_size)
    return (
        f"Not even one patch of {sides} voxels fits the {room:.1f} GB that are free: plan for this GPU with "
        f"nndet_prep -o plan_cfg.gpu_memory_gb={max(1, floor(room))} prep.overwrite=true"
    )
