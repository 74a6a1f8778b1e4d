"""When a training has gone wrong: losses that are not finite or explode, gradients that never become finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from nndet_psma.core.atomic import write_json
from nndet_psma.core.errors import UserError

FAILED_FILE = "failed_step.json"
EXPLOSION_FACTOR, EXPLOSION_LEAST = 1000.0, 100.0
MAX_SKIPPED = 50
_WINDOW, _LEAST_STEPS = 101, 10


class LossWatch:
    """Judges every step by its loss and its gradient norm.

    A loss is wrong when it is not finite, or when it is above ``EXPLOSION_LEAST`` and more than ``EXPLOSION_FACTOR``
    times the median of the last 101 losses (from the tenth step on). A gradient that is not finite is wrong unless fp16
    skipped the step; ``MAX_SKIPPED`` skipped steps in a row are wrong, too.

    Attributes:
        recent: losses of the last steps, oldest first.
        skipped: skipped steps so far.
        skipped_in_row: those since the last step that was made.
    """

    def __init__(self, recent: Sequence[float] = (), skipped: int = 0, skipped_in_row: int = 0) -> None:
        self.recent = list(recent)
        self.skipped, self.skipped_in_row = skipped, skipped_in_row

    def judge(self, loss: float, norm: float, skipped: bool) -> str | None:
        """What is wrong with a step, None if nothing; remembers the step."""
        wrong = self._wrong_loss(loss)
        if wrong is None and not skipped and not math.isfinite(norm):
            wrong = "has gradients that are not finite"
        self.skipped += skipped
        self.skipped_in_row = self.skipped_in_row + 1 if skipped else 0
        if wrong is None and self.skipped_in_row >= MAX_SKIPPED:
            wrong = f"is the last of {MAX_SKIPPED} in a row whose fp16 gradients are not finite"
        if math.isfinite(loss):
            self.recent = [*self.recent, loss][-_WINDOW:]
        return wrong

    def _wrong_loss(self, loss: float) -> str | None:
        if not math.isfinite(loss):
            return "has a loss that is not finite"
        if len(self.recent) < _LEAST_STEPS or loss <= EXPLOSION_LEAST:
            return None
        usual = median(self.recent)
        if loss > EXPLOSION_FACTOR * usual:
            return f"has a loss more than {EXPLOSION_FACTOR:g} times the usual {usual:.3g}"
        return None


def write_failure(
    folder: Path, step: int, losses: dict[str, float], slices: Sequence[str], wrong: str
) -> None:
    """Leave ``failed_step.json``; numbers that are not finite are written as text."""
    values: dict[str, Any] = {k: v if math.isfinite(v) else str(v) for k, v in losses.items()}
    content = {"step": step, "wrong": wrong, "losses": values, "slices": list(slices)}
    write_json(folder / FAILED_FILE, content)


def failed_step(
    stage: str, step: int, losses: dict[str, float], slices: Sequence[str], wrong: str
) -> UserError:
    """The error of a step that went wrong."""
    values = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    return UserError(
        f"step {step} of stage '{stage}' {wrong}",
        found=f"{values} on the slices {', '.join(slices)}",
        remedy="The last checkpoint is kept; look at these slices, or lower trainer_cfg.learning_rate, and start again",
    )
