"""One stage on its way, and what a system gives to its running."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from accelerate import Accelerator
from torch import nn

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.core.lock import FolderLock
from nndet_psma.planners.training_memory import Training
from nndet_psma.preprocess.store import inputs_hash
from nndet_psma.trainers.checkpoint import MODEL_FILE
from nndet_psma.trainers.cost.stage_load import StageLoad
from nndet_psma.trainers.loop import Losses
from nndet_psma.trainers.observer import Observer
from nndet_psma.trainers.registry import SP, FoldJob


@dataclass(frozen=True)
class StageRun(Generic[SP]):
    """One stage on its way; the lock is held by the main process.

    Attributes:
        job: of the fold.
        stage: as adjusted by the settings.
        accelerator: device and processes.
        lock: of the stage's folder.
        made_from: hash of everything that determines the weights.
    """

    job: FoldJob[SP]
    stage: Stage
    accelerator: Accelerator
    lock: FolderLock
    made_from: str

    @property
    def folder(self) -> Path:
        """Of the stage."""
        return self.job.folder / self.stage.name

    @property
    def seed(self) -> int:
        """Of all draws."""
        return self.job.plan.seed if self.job.settings.seed is None else self.job.settings.seed

    @property
    def batch_size(self) -> int:
        """Images per step over all processes."""
        return self.job.settings.batch_size or self.job.plan.batch_size

    @property
    def images(self) -> int:
        """Images per step of one process, at most."""
        processes: int = self.accelerator.num_processes
        return -(-self.batch_size // processes)

    @property
    def training(self) -> Training:
        """What takes memory besides the network."""
        settings = self.job.settings
        gpus = self.accelerator.num_processes
        return Training(self.job.plan.optimizer, settings.precision, settings.ema_decay is not None, gpus)

    @property
    def start(self) -> Path | None:
        """Weights the stage starts from: of the stage before, or of the user; None for those of the plan."""
        if self.stage.start_from is not None:
            return self.job.folder / self.stage.start_from / MODEL_FILE
        own = self.job.settings.start_weights
        return None if own is None else Path(own)

    @property
    def train_cases(self) -> list[str]:
        """Training cases of the fold."""
        return self.job.plan.folds[self.job.fold].train

    @property
    def validation_share(self) -> list[str]:
        """Validation cases that this process looks at."""
        return self.share(self.job.plan.folds[self.job.fold].val)

    def share(self, case_ids: list[str]) -> list[str]:
        """Cases that this process looks at."""
        return case_ids[self.accelerator.process_index :: self.accelerator.num_processes]


class StageSystem(ABC, Generic[SP]):
    """What a system gives to the running of its stages; called on all processes but where a method says otherwise.

    Attributes:
        criterion: what validation measures, for ``best/best.json``.
    """

    criterion: str

    @abstractmethod
    def model(self, run: StageRun[SP]) -> nn.Module:
        """The model with the weights it starts from (``run.start``)."""

    @abstractmethod
    def batches(self, run: StageRun[SP]) -> Any:
        """Item ``i`` is the batch of step ``i``, ``part(i, rank, world)`` that of one process."""

    @abstractmethod
    def counts(self, model: nn.Module) -> dict[str, int]:
        """By loss, over how many boxes of this process it is a mean, after a forward pass."""

    @abstractmethod
    def value(self, run: StageRun[SP], model: nn.Module) -> float:
        """How good the model, in evaluation mode, is on the fold's validation cases; higher is better.

        Raises:
            UserError: the validation cases tell nothing.
        """

    def inputs(self, job: FoldJob[SP], case_ids: list[str]) -> list[str]:
        """Hashes of the prepared cases that a training reads."""
        return [inputs_hash(job.store, case_id) for case_id in case_ids]

    def load(self, run: StageRun[SP]) -> StageLoad | None:
        """What the stage asks of the machine, None where nothing is known; called on the main process."""
        return None

    def pictures(self, run: StageRun[SP]) -> Observer | None:
        """Who draws batches every now and then, None for nobody; called on the main process."""
        return None

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        """Parts of the loss of a batch."""
        parts: Losses = model(list(batch["images"]), batch["targets"])
        return parts

    def remedy(self, run: StageRun[SP]) -> str:
        """What to lower when the GPU is full."""
        return "Lower trainer_cfg.batch_size"

    def compile(self, model: nn.Module) -> None:
        """Compile what is worth it, in place: names of weights stay."""
        model.compile()

    def after(self, run: StageRun[SP]) -> None:
        """Called when the stage is finished, such as for what its children need."""
