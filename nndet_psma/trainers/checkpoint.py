"""Checkpoints of a running stage: model, optimiser, step. Whole or not at all; no pickle is ever run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn
from torch.optim import Optimizer

from nndet_psma.artifacts.artifact import Artifact
from nndet_psma.core.atomic import atomic_folder
from nndet_psma.core.errors import UserError
from nndet_psma.models.weights import read_model, read_state, write_model

_MODEL = "model.safetensors"
_OPTIMIZER = "optimizer.pt"
_PROGRESS = "progress.json"


@dataclass(frozen=True)
class Progress(Artifact):
    """How far a stage is, and what it was trained from (hash of plan, stage and fold)."""

    schema: ClassVar[str] = "nndet_psma.progress"
    remade_by: ClassVar[str] = "nndet_train with train.mode=overwrite"

    step: int
    made_from: str
    metrics_rows: int


def save_checkpoint(folder: Path, model: nn.Module, optimizer: Optimizer, progress: Progress) -> None:
    """Replace the checkpoint in ``folder`` by the present state."""
    with atomic_folder(folder) as temporary:
        write_model(model, temporary / _MODEL)
        torch.save(optimizer.state_dict(), temporary / _OPTIMIZER)
        progress.write(temporary / _PROGRESS)


def load_checkpoint(folder: Path, model: nn.Module, optimizer: Optimizer, made_from: str) -> Progress | None:
    """Restore the state in ``folder``; None when there is none.

    Raises:
        UserError: the checkpoint was made from another plan, fold or configuration.
    """
    if not (folder / _PROGRESS).is_file():
        return None
    progress = Progress.read(folder / _PROGRESS)
    if progress.made_from != made_from:
        raise UserError(
            "checkpoint belongs to another plan, fold, training configuration or data",
            file=folder,
            remedy="Start over with -o train.mode=overwrite, or train under another name with -o exp.tag=_NAME",
        )
    read_model(model, folder / _MODEL)
    optimizer.load_state_dict(read_state(folder / _OPTIMIZER))
    return progress
