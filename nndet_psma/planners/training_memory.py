"""Training memory that follows from parameters and activations, whatever the network; each system counts its own.

Nothing here needs a GPU or imports PyTorch. ``trainers.watch.memory_check`` sets the estimates against the peak of a
real GPU. GB are 10^9 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from nndet_psma.core.errors import UserError

_MOST_GPUS = 64
USABLE_SHARE = 0.92
"""Of a GPU's memory: the rest is for displays, other processes, and the error of the estimate."""

# Assumptions that only a GPU can check: CUDA context and kernels, rounding and holes of the caching allocator.
# ``trainers.watch.memory_check`` records what they amount to.
_CONTEXT_GB, _FRAGMENTATION = 0.6, 0.1
_OPTIMIZER_STATES = {"sgd": 1, "adamw": 2}


@dataclass(frozen=True)
class Training:
    """``precision`` as in ``trainer_cfg``; ``averaged``: an average of the weights is kept; ``gpus`` share a batch."""

    optimizer: str = "sgd"
    precision: str = "no"
    averaged: bool = False
    gpus: int = 1

    def __post_init__(self) -> None:
        if self.optimizer not in _OPTIMIZER_STATES or not 1 <= self.gpus <= _MOST_GPUS:
            raise UserError(
                "memory is estimated for sgd or adamw on 1 to 64 GPUs",
                found=str(self),
                remedy="Correct optimizer or num_gpus",
            )

    @property
    def mixed(self) -> bool:
        """Whether activations are kept in 16 bit where autocast allows it."""
        return self.precision != "no"


PLAIN = Training()


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak memory of one GPU in a training step, by part, in GB.

    The peak lies where forward ends: the gradients of the step before are still held then (``trainers.loop`` drops
    them after forward). ``weights`` include 16 bit copies under autocast, ``gradients``
    the buckets of several GPUs; ``images`` is the batch as loaded, ``activations`` what is kept for backward,
    ``temporaries`` the largest of the phases that follow each other, ``fragmentation`` what the caching allocator
    loses, ``workspace`` cuDNN's; ``context`` is CUDA's, which PyTorch does not count.
    """

    weights: float
    gradients: float
    optimizer: float
    averaged: float
    images: float
    activations: float
    temporaries: float
    fragmentation: float
    workspace: float
    context: float

    @property
    def total(self) -> float:
        """Sum of all parts."""
        summed: float = sum(getattr(self, field.name) for field in fields(self))
        return summed

    def describe(self) -> str:
        """``total (largest parts)`` for a plan."""
        parts = sorted(((getattr(self, f.name), f.name) for f in fields(self)), reverse=True)
        return f"{self.total:.1f} GB ({', '.join(f'{name} {size:.1f}' for size, name in parts[:4])})"


@dataclass(frozen=True)
class StepBytes:
    """What one step of a network takes on one GPU: trainable ``parameters`` (a number), and bytes of the batch."""

    parameters: int
    images: float
    activations: float
    temporaries: float

    def estimate(self, training: Training, workspace_gb: float, device: str) -> MemoryEstimate:
        """Peak on a GPU, or on a "cpu" without CUDA's parts; ``workspace_gb`` is what cuDNN asks for."""
        gpu = device == "gpu"
        weights = self.parameters * 4 / 1e9
        activations, temporaries = self.activations / 1e9, self.temporaries / 1e9
        return MemoryEstimate(
            weights=weights * (1.5 if training.mixed else 1.0),
            gradients=weights * (2 if training.gpus > 1 else 1),
            optimizer=weights * _OPTIMIZER_STATES[training.optimizer],
            averaged=weights if training.averaged else 0.0,
            images=self.images / 1e9,
            activations=activations,
            temporaries=temporaries,
            fragmentation=_FRAGMENTATION * (activations + temporaries) if gpu else 0.0,
            workspace=workspace_gb if gpu else 0.0,
            context=_CONTEXT_GB if gpu else 0.0,
        )
