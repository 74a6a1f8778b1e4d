"""Seconds of a training step on patches: the FLOPs of the planned layers over the speed of a device."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.planners.training_memory import MemoryEstimate, Training
from nndet_psma.systems.retina3d.layers import PatchNetwork, patch_flops
from nndet_psma.systems.retina3d.memory import estimate_patch_memory
from nndet_psma.systems.retina3d.plan import Retina3DPlan
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
