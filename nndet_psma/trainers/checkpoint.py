"""Checkpoints of a running stage: model, optimiser, step. Whole or not at all; no pickle is ever run."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn
from torch.optim import Optimizer

from nndet_psma.artifacts.artifact import Artifact
from nndet_psma.core.atomic import atomic_folder
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files
from nndet_psma.trainers.average import WeightAverage
from nndet_psma.trainers.networks.weights import read_model, read_state, write_model, write_state

MODEL_FILE = "model.safetensors"
CHECKPOINT_FOLDER = "checkpoint"
_OPTIMIZER = "optimizer.pt"
_AVERAGE = "average.safetensors"
_PROGRESS = "progress.json"
_BEST = "best.json"


@dataclass(frozen=True)
class Best(Artifact):
    """The weights beside it: after which step, and their value on the validation patients (higher is better).

    They were chosen on these patients, so later scores on the same patients are optimistic.
    """

    schema: ClassVar[str] = "nndet_psma.best"
    remade_by: ClassVar[str] = "nndet_train with train.mode=overwrite"

    step: int
    value: float
    criterion: str


@dataclass(frozen=True)
class Progress(Artifact):
    """How far a stage is, and what it was trained from.

    Random numbers need no state here: those of a step follow from (seed, step).

    Attributes:
        step: finished steps.
        made_from: hash of plan, stage, fold, data and configuration.
        metrics_rows: rows of metrics.csv.
        metrics_pending: sums of the steps that have no row yet.
        recent_losses: of the last steps, for the judgement of the next.
        skipped: steps that fp16 left out.
        skipped_in_row: those since the last step that was made.
        scaler: state of the fp16 loss scaling.
        best: best validated weights so far.
        optimizer_hash: of the bytes of the optimiser's file; the weights have theirs in their own header.
    """

    schema: ClassVar[str] = "nndet_psma.progress"
    version: ClassVar[int] = 2
    remade_by: ClassVar[str] = "nndet_train with train.mode=overwrite"

    step: int
    made_from: str
    metrics_rows: int = 0
    metrics_pending: dict[str, float] = field(default_factory=dict)
    recent_losses: list[float] = field(default_factory=list)
    skipped: int = 0
    skipped_in_row: int = 0
    scaler: dict[str, float] = field(default_factory=dict)
    best: Best | None = None
    optimizer_hash: str = ""


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer,
    progress: Progress,
    average: WeightAverage | None = None,
) -> None:
    """Replace the checkpoint in ``folder`` by the present state.

    Raises:
        UserError: the disk is full; the checkpoint that was there stays.
    """
    buffer = io.BytesIO()  # torch.save to a full disk raises no OSError that could be told from a bug
    torch.save(optimizer.state_dict(), buffer)
    with atomic_folder(folder) as temporary:
        write_model(model, temporary / MODEL_FILE)
        (temporary / _OPTIMIZER).write_bytes(buffer.getbuffer())
        if average is not None:
            write_state(average.state, temporary / _AVERAGE)
        noted = replace(progress, optimizer_hash=hash_files([temporary / _OPTIMIZER]))
        noted.write(temporary / _PROGRESS)


def load_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer,
    made_from: str,
    average: WeightAverage | None = None,
) -> Progress | None:
    """Restore the state in ``folder``; None when there is none.

    Raises:
        UserError: the checkpoint was made from another plan, fold or configuration, or is damaged.
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
    read_model(model, folder / MODEL_FILE)
    if progress.optimizer_hash not in ("", hash_files([folder / _OPTIMIZER])):
        raise UserError(
            "differs from what was written: its checksum is another",
            file=folder / _OPTIMIZER,
            remedy="Start over with -o train.mode=overwrite",
        )
    optimizer.load_state_dict(read_state(folder / _OPTIMIZER))
    if average is not None:
        state = read_state(folder / _AVERAGE)
        for name, tensor in average.state.items():
            tensor.copy_(state[name])
    return progress


def save_best(folder: Path, model: nn.Module, best: Best) -> None:
    """Replace the weights in ``folder`` by those of ``model``."""
    with atomic_folder(folder) as temporary:
        write_model(model, temporary / MODEL_FILE)
        best.write(temporary / _BEST)
