"""What the training loop tells those who watch it.

Progress bar, metrics file, pictures and trackers are observers: the loop knows none
of them by name and calls each in the order given, on the main process only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class StepReport:
    """One finished training step.

    Attributes:
        step: Finished steps of the stage, from 1.
        iterations: Steps of the stage.
        losses: The detector's parts and their sum "loss"; the mean over processes.
        learning_rate: The rate this step was made with.
        images: Images of this step over all processes.
        seconds: Wall clock of this step.
        batch: The batch as the model saw it: {"images": [B, C, H, W],
            "targets": [one dictionary an image], "slices": ["case:z", ...]}.
    """

    step: int
    iterations: int
    losses: dict[str, float]
    learning_rate: float
    images: int
    seconds: float
    batch: Any


class Observer(Protocol):
    """One who watches a training; called on the main process only, in the order given."""

    def on_step(self, report: StepReport, model: nn.Module) -> None:
        """Called after every finished step, with the model as it now is."""
        ...

    def on_end(self, finished: bool) -> None:
        """Called once at the end; also after an interruption or an error.

        Args:
            finished: Whether the stage made all its steps.
        """
        ...
