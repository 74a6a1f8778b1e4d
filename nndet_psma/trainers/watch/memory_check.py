"""The planner's memory estimate against the real peak of a GPU: ``memory.json`` in the folder of a stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import nn

from nndet_psma.artifacts.artifact import Artifact
from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER
from nndet_psma.planners.training_memory import Training
from nndet_psma.trainers.cost.stage_load import StageLoad
from nndet_psma.trainers.observer import StepReport

MEMORY_FILE = "memory.json"
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
        estimated_gb: by the system's memory model.
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
    load: StageLoad, stage: Stage, batch_size: int, training: Training, peak: Peak, device: str
) -> MemoryCheck:
    """The estimate for a stage (``batch_size`` images on one GPU) beside a measured peak; a pure function.

    Raises:
        UserError: the planner has no numbers for the network (a hand-edited plan).
    """
    estimate = load.memory(batch_size, training)
    estimated = estimate.total - estimate.context
    measured, allocated = peak.reserved / 1e9, peak.allocated / 1e9
    return MemoryCheck(
        stage=stage.name,
        device=device,
        backbone=load.backbone,
        batch_size=batch_size,
        input_size=load.input_size,
        precision=training.precision,
        estimated_gb=round(estimated, 3),
        measured_gb=round(measured, 3),
        allocated_gb=round(allocated, 3),
        ratio=round(measured / estimated, 3),
    )


class Room(NamedTuple):
    """Memory of a GPU, and what other processes hold of it, in GB."""

    memory_gb: float
    held_gb: float


def gpu_room(device: torch.device) -> Room:
    """Of the GPU ``device`` as it is now."""
    free, total = torch.cuda.mem_get_info(device)
    others = max(0, total - free - torch.cuda.memory_reserved(device))
    return Room(total / 1e9, others / 1e9)


class MemoryWatch:
    """Writes ``memory.json`` once, after the third step (or the stage's last); an observer of the loop.

    Without a GPU it does nothing. Where the estimate is unknown it logs why and does no more.

    Args:
        load: estimate of the stage.
        stage: that is trained.
        folder: of the stage.
        batch_size: images per step of one GPU.
        training: what else takes memory.
        device: that it is trained on.
    """

    def __init__(
        self,
        load: StageLoad,
        stage: Stage,
        folder: Path,
        batch_size: int,
        training: Training,
        device: torch.device,
    ) -> None:
        self.load, self.stage, self.folder = load, stage, folder
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
            check = compare_memory(self.load, self.stage, self.batch_size, self.training, peak, name)
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
