"""The trainers: found by name, entry point or dotted path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nndet_psma.artifacts.plan import Plan
from nndet_psma.core.registry import Registry
from nndet_psma.trainers.settings import TrainerSettings


@dataclass(frozen=True)
class FoldJob:
    """One fold to train.

    Attributes:
        plan: with overrides already applied.
        fold: index into ``plan.folds``.
        store: preprocessed cases.
        folder: model folder of the fold; one sub-folder per stage.
        settings: ``trainer_cfg`` of the configuration.
        overwrite: forget what is there instead of going on.
        voter: train only this stage (and what it starts from); None trains all.
    """

    plan: Plan
    fold: int
    store: Path
    folder: Path
    settings: TrainerSettings
    overwrite: bool = False
    voter: str | None = None


class Trainer(Protocol):
    """Trains the stages of one fold; built without arguments."""

    def train(self, job: FoldJob) -> None:
        """Train; leaves ``folder/<stage>/model.safetensors`` for every stage."""
        ...


TRAINERS: Registry[Trainer] = Registry("trainer (module)", "nndet_psma.trainers")
