"""The planner's memory estimate against the real peak of a GPU: ``memory.json`` in the folder of a stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch

from nndet_psma.artifacts.artifact import Artifact
from nndet_psma.artifacts.plan import Plan, Stage
from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER
from nndet_psma.planners.memory import Network, Training, estimate_memory

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
        batch_size: slices per step.
        input_size: (height, width) in detector pixels.
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
    input_size: tuple[int, int]
    precision: str
    estimated_gb: float
    measured_gb: float
    allocated_gb: float
    ratio: float


def compare_memory(
    plan: Plan, stage: Stage, batch_size: int, precision: str, peak: Peak, device: str
) -> MemoryCheck:
    """The estimate for a stage beside a measured peak; a pure function.

    Raises:
        UserError: the planner has no numbers for the backbone or norm (a hand-edited plan).
    """
    detector = plan.detector
    size = detector.input_size if stage.region == "search" else detector.body_input_size
    network = Network.of(detector, channels=plan.channels(stage), classes=len(plan.classes))
    estimate = estimate_memory(network, size[0] * size[1], batch_size, Training(plan.optimizer, precision))
    estimated = estimate.total - estimate.context
    measured, allocated = peak.reserved / 1e9, peak.allocated / 1e9
    return MemoryCheck(
        stage=stage.name,
        device=device,
        backbone=detector.backbone,
        batch_size=batch_size,
        input_size=size,
        precision=precision,
        estimated_gb=round(estimated, 3),
        measured_gb=round(measured, 3),
        allocated_gb=round(allocated, 3),
        ratio=round(measured / estimated, 3),
    )


class MemoryWatch:
    """Called after every step; writes ``memory.json`` once, after the third step (or the stage's last).

    Without a GPU it does nothing. Where the estimate is unknown it logs why and does no more.

    Args:
        plan: with the estimate's numbers.
        stage: that is trained.
        folder: of the stage.
        batch_size: slices per step.
        precision: of ``trainer_cfg``.
        device: that it is trained on.
    """

    def __init__(
        self, plan: Plan, stage: Stage, folder: Path, batch_size: int, precision: str, device: torch.device
    ) -> None:
        self.plan, self.stage, self.folder = plan, stage, folder
        self.batch_size, self.precision, self.device = batch_size, precision, device
        self._waiting = _STEPS if device.type == "cuda" else 0
        if self._waiting:
            torch.cuda.empty_cache()  # what an earlier stage left must not count here
            torch.cuda.reset_peak_memory_stats(device)

    def __call__(self, step: int) -> None:
        """``step`` counts from 1; a resumed stage counts its own first steps."""
        if not self._waiting:
            return
        self._waiting = 0 if step == self.stage.iterations else self._waiting - 1
        if not self._waiting:
            self._record()

    def _record(self) -> None:
        peak = Peak(torch.cuda.max_memory_allocated(self.device), torch.cuda.max_memory_reserved(self.device))
        name = torch.cuda.get_device_name(self.device)
        try:
            check = compare_memory(self.plan, self.stage, self.batch_size, self.precision, peak, name)
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
