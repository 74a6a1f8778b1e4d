"""What training a stage asks of a machine: counted by each system, read by cost, memory check and scheduler."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from nndet_psma.planners.training_memory import MemoryEstimate, Training
from nndet_psma.trainers.cost.devices import Device


@dataclass(frozen=True)
class StageLoad(ABC):
    """The load of one stage; needs neither a GPU nor PyTorch.

    Every method raises UserError where nothing is known of the planned network.

    Attributes:
        unit: what an image is called: "slices", "patches".
        cpu: assumed speed of a CPU core.
        backbone: name of the network.
        input_size: (height, width) in detector pixels, or (z, y, x) in voxels.
    """

    unit: ClassVar[str]
    cpu: ClassVar[Device]

    backbone: str
    input_size: tuple[int, ...]

    @abstractmethod
    def memory(self, images: int, training: Training, *, device: str = "gpu") -> MemoryEstimate:
        """Peak of one GPU, or of the process on a "cpu", that trains ``images`` per step."""

    @abstractmethod
    def flops(self) -> float:
        """Of one image in a training step, forward and backward; two are one multiplication and addition."""

    @abstractmethod
    def step_seconds(self, images: int, device: Device, cores: int = 1) -> float:
        """Of a training step of ``images`` on one GPU, or on ``cores`` of a CPU."""


StageLoads = Mapping[str, StageLoad]
"""The stages of a plan by name."""
