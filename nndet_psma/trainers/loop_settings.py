"""What the training loop needs besides model and data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from nndet_psma.artifacts.detector_plan import CLIP_NORM
from nndet_psma.trainers.observer import Observer
from nndet_psma.trainers.settings import TrainerSettings


@dataclass(frozen=True)
class LoopSettings:
    """What the loop needs besides model and data.

    Attributes:
        folder: checkpoint/, best/ and metrics.csv are kept here.
        made_from: hash of everything that determines the result; a checkpoint of another hash is refused.
        seed: of the model's own sampling (anchors, proposals); with the step it fixes every draw.
        trainer: ``trainer_cfg``; what replaces values of the plan (seed, batch, stage, clip_norm) is not read here.
        optimizer: "sgd" or "adamw".
        clip_norm: largest gradient norm; 0 does not clip.
        norm_decay: whether weight decay also acts on trained normalisation layers.
        observers: told of every step, on the main process.
        validate: value of a model (higher is better) on validation patients; called on every process, with the
            averaged weights where an average is kept, as often as ``trainer`` asks, and after the last step.
        criterion: what ``validate`` measures, for ``best/best.json``.
        out_of_memory: what to lower, asked when the GPU is full.
    """

    folder: Path
    made_from: str
    seed: int
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    optimizer: str = "sgd"
    clip_norm: float = CLIP_NORM
    norm_decay: bool = True
    observers: Sequence[Observer] = ()
    validate: Callable[[nn.Module], float] | None = None
    criterion: str = ""
    out_of_memory: Callable[[], str] = field(default=lambda: "Lower trainer_cfg.batch_size")
