"""The planner's memory estimate against the real peak of a GPU: ``memory.json`` in the folder of a stage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import nn

from nndet_psma.artifacts.artifact import Artifact
from nndet_psma.artifacts.detector_plan import DetectorPlan, Stage
from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER
from nndet_psma.planners.training_memory import (
    MemoryEstimate,
    Network,
    Training,
    estimate_memory,
    max_images_for,
)
from nndet_psma.systems.retina3d.layers import PatchNetwork
from nndet_psma.systems.retina3d.memory import estimate_patch_memory
from nndet_psma.trainers.observer import StepReport

MEMORY_FILE = "memory.json"
_PATCH_ENCODER = "PlainConvEncoder"
_STEPS = (
    3  # the first step has no gradients of a step before, the second may still choose convolution algorithms
)


class Peak(NamedTuple):
    """Peak bytes of PyTorch's allocator since the stage began: handed out, and held from the driver."""

    allocated: int
    reserved: int


@dataclass(frozen=True)
class MemoryCheck(Artifact):
    """Estimate and measurement of one stage, without the CUDA context (PyTorch does not count it).

    Attributes:
        stage: name.
        device: name of the GPU.
        backbone: of the detector.
        batch_size: slices or patches per step.
        input_size: (height, width) in detector pixels, or (z, y, x) of a patch in voxels.
        precision: of ``trainer_cfg``.
        estimated_gb: by ``planners.memory``.
        measured_gb: most memory reserved.
        allocated_gb: most memory in use by tensors; the rest of ``measured_gb`` is the allocator's.
        ratio: measured / estimated.
    """

    schema: ClassVar[str] = "nndet_psma.memory_check"
    remade_by: ClassVar[str] = "nndet_train"

    stage: str
    device: str
    backbone: str
    batch_size: int
    input_size: tuple[int, ...]
    precision: str
    estimated_gb: float
    measured_gb: float
    allocated_gb: float
    ratio: float


def compare_memory(
    plan: DetectorPlan, stage: Stage, batch_size: int, training: Training, peak: Peak, device: str
) -> MemoryCheck:
    """The estimate for a stage (``batch_size`` slices or patches on one GPU) beside a measured peak; a pure function.

    Raises:
        UserError: the planner has no numbers for the backbone or norm (a hand-edited plan).
    """
    size, estimate = _estimate(plan, stage, batch_size, training)
    estimated = estimate.total - estimate.context
    measured, allocated = peak.reserved / 1e9, peak.allocated / 1e9
    return MemoryCheck(
        stage=stage.name,
        device=device,
        backbone=_PATCH_ENCODER if plan.detector is None else plan.detector.backbone,
        batch_size=batch_size,
        input_size=size,
        precision=training.precision,
        estimated_gb=round(estimated, 3),
        measured_gb=round(measured, 3),
        allocated_gb=round(allocated, 3),
        ratio=round(measured / estimated, 3),
    )


def full_gpu_remedy(
    plan: DetectorPlan, stage: Stage, batch_size: int, training: Training, device: torch.device
) -> str:
    """:func:`what_to_lower` on the GPU ``device`` as it is now."""
    free, total = torch.cuda.mem_get_info(device)
    others = max(0, total - free - torch.cuda.memory_reserved(device))
    return what_to_lower(plan, stage, batch_size, training, total / 1e9, others / 1e9)


def what_to_lower(
    plan: DetectorPlan,
    stage: Stage,
    batch_size: int,
    training: Training,
    memory_gb: float,
    held_gb: float = 0.0,
) -> str:
    """A remedy for a full GPU: the batch that fits by the planner's estimate, or else a smaller network.

    Args:
        plan: of the stage.
        stage: that did not fit.
        batch_size: slices per step of one GPU.
        training: what else takes memory; its ``gpus`` share a batch.
        memory_gb: memory of the GPU.
        held_gb: what other processes hold of it.
    """
    if plan.detector is None:
        return _fewer_patches(plan, stage, batch_size, training, memory_gb - held_gb)
    try:
        size, network = _load(plan, stage)
    except UserError:
        return "Lower trainer_cfg.batch_size"
    room = max_images_for(memory_gb - held_gb, network, size[0] * size[1], training)
    gpus = training.gpus
    if room >= batch_size > 1:  # the estimate is wrong here, so trust it no further
        return (
            f"Lower trainer_cfg.batch_size from {batch_size * gpus} to {max(1, batch_size // 2) * gpus}; by the "
            f"estimate {room * gpus} would fit, so see whether other programs hold GPU memory"
        )
    if 1 <= room < batch_size:
        needed = estimate_memory(network, size[0] * size[1], room, training).total
        return (
            f"Lower trainer_cfg.batch_size from {batch_size * gpus} to {room * gpus} "
            f"(about {needed:.1f} of {memory_gb:.1f} GB per GPU, {held_gb:.1f} held by others)"
        )
    return (
        f"Not even one slice of {size[0]} x {size[1]} pixels fits {memory_gb:.1f} GB ({held_gb:.1f} held by others): "
        f"plan for this GPU with nndet_prep -o plan_cfg.gpu_memory_gb={math.floor(memory_gb)} prep.overwrite=true"
    )


def _fewer_patches(
    plan: DetectorPlan, stage: Stage, batch_size: int, training: Training, room_gb: float
) -> str:
    gpus = training.gpus
    fitting = [n for n in range(1, batch_size) if _estimate(plan, stage, n, training)[1].total <= room_gb]
    if fitting:
        return f"Lower trainer_cfg.batch_size from {batch_size * gpus} to {fitting[-1] * gpus}"
    sides = " x ".join(str(side) for side in plan.detector3d.patch_size)
    return (
        f"Not even one patch of {sides} voxels fits the {room_gb:.1f} GB that are free: plan for this GPU with "
        f"nndet_prep -o plan_cfg.gpu_memory_gb={max(1, math.floor(room_gb))} prep.overwrite=true"
    )


def _estimate(
    plan: DetectorPlan, stage: Stage, images: int, training: Training
) -> tuple[tuple[int, ...], MemoryEstimate]:
    """Size of an input of the stage, and the planner's estimate for ``images`` of them on one GPU."""
    if plan.detector is not None:
        size, network = _load(plan, stage)
        return size, estimate_memory(network, size[0] * size[1], images, training)
    patches = plan.detector3d
    layers = PatchNetwork.of(patches, channels=plan.channels(stage), classes=len(plan.classes))
    return patches.patch_size, estimate_patch_memory(layers, math.prod(patches.patch_size), images, training)


def _load(plan: DetectorPlan, stage: Stage) -> tuple[tuple[int, int], Network]:
    detector = plan.detector
    size = detector.input_size if stage.region == "search" else detector.body_input_size
    return size, Network.of(detector, channels=plan.channels(stage), classes=len(plan.classes))


class MemoryWatch:
    """Writes ``memory.json`` once, after the third step (or the stage's last); an observer of the loop.

    Without a GPU it does nothing. Where the estimate is unknown it logs why and does no more.

    Args:
        plan: with the estimate's numbers.
        stage: that is trained.
        folder: of the stage.
        batch_size: slices per step of one GPU.
        training: what else takes memory.
        device: that it is trained on.
    """

    def __init__(
        self,
        plan: DetectorPlan,
        stage: Stage,
        folder: Path,
        batch_size: int,
        training: Training,
        device: torch.device,
    ) -> None:
        self.plan, self.stage, self.folder = plan, stage, folder
        self.batch_size, self.training, self.device = batch_size, training, device
        self._waiting = _STEPS if device.type == "cuda" else 0
        if self._waiting:
            torch.cuda.empty_cache()  # what an earlier stage left must not count here
            torch.cuda.reset_peak_memory_stats(device)

    def on_step(self, report: StepReport, model: nn.Module) -> None:
        """Count the step; a resumed stage counts its own first steps."""
        if not self._waiting:
            return
        self._waiting = 0 if report.step == self.stage.iterations else self._waiting - 1
        if not self._waiting:
            self._record()

    def on_end(self, finished: bool) -> None:
        """Nothing is left to do."""

    def _record(self) -> None:
        peak = Peak(torch.cuda.max_memory_allocated(self.device), torch.cuda.max_memory_reserved(self.device))
        name = torch.cuda.get_device_name(self.device)
        try:
            check = compare_memory(self.plan, self.stage, self.batch_size, self.training, peak, name)
        except UserError as error:
            LOGGER.info("stage %s: GPU memory not compared: %s", self.stage.name, error)
            return
        check.write(self.folder / MEMORY_FILE)
        LOGGER.info(
            "stage %s: GPU memory %.2f GB, estimated %.2f GB (%+.0f %%)",
            self.stage.name,
            check.measured_gb,
            check.estimated_gb,
            100 * (check.ratio - 1),
        )
