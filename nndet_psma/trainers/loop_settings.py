"""What the training loop needs besides model and data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import nn

from nndet_psma.trainers.observer import Observer


@dataclass(frozen=True)
class LoopSettings:
    """What the loop needs besides model and data.

    Attributes:
        folder: checkpoint/, best/ and metrics.csv are kept here.
        made_from: hash of everything that determines the result; a checkpoint of another hash is refused.
        seed: of the model's own sampling (anchors, proposals); with the step it fixes every draw.
        workers: loader processes of this process.
        save_every: steps between checkpoints.
        log_every: steps between rows of metrics.csv.
        clip_norm: gradient norm above which gradients are scaled down.
        optimizer: "sgd" or "adamw".
        momentum: of SGD (0.9 in Xu et al. 2023).
        weight_decay: 1e-4 in Xu et al. 2023.
        precision: "no", "bf16" or "fp16".
        ema_decay: of the average of the weights that is kept and returned; None keeps none.
        channels_last: keep convolution weights in that order of memory; faster on GPUs.
        observers: told of every step, on the main process.
        validate: value of a model (higher is better) on validation patients; called on every process, with the
            averaged weights where an average is kept.
        validate_every: steps between validations; the last step is always validated.
        select: return the weights of the "last" step or the "best" validated ones.
        criterion: what ``validate`` measures, for ``best/best.json``.
        out_of_memory: what to lower, asked when the GPU is full.
    """

    folder: Path
    made_from: str
    seed: int
    workers: int
    save_every: int
    log_every: int
    clip_norm: float = 10.0
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    precision: str = "no"
    ema_decay: float | None = None
    channels_last: bool = False
    observers: Sequence[Observer] = ()
    validate: Callable[[nn.Module], float] | None = None
    validate_every: int = 1
    select: Literal["last", "best"] = "last"
    criterion: str = ""
    out_of_memory: Callable[[], str] = field(default=lambda: "Lower trainer_cfg.batch_size")
