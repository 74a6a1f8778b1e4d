"""What a person sees while a stage trains: a bar on a terminal, else a plain line now and then; the log."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import IO, TYPE_CHECKING

from nndet_psma.core.logs import LOGGER
from nndet_psma.core.progress import ProgressBar
from nndet_psma.trainers.metrics_log import memory_gb
from nndet_psma.trainers.observer import StepReport

if TYPE_CHECKING:
    from torch import nn

_WEIGHT = 0.05  # of the newest step in a smoothed value


class Smoothed:
    """Exponential mean of a value; early on it is the plain mean, so that it does not begin at zero."""

    def __init__(self, weight: float = _WEIGHT) -> None:
        self.weight = weight
        self.value = 0.0
        self.count = 0

    def add(self, value: float) -> float:
        """Take in a value; returns the mean."""
        self.count += 1
        self.value += max(self.weight, 1 / self.count) * (value - self.value)
        return self.value


class ConsoleProgress:
    """Bar with loss and its parts, images/s, memory and time left; an observer of the loop.

    A line of the same content goes to the log (``train.log``) every ``share`` of the stage. A stream that closes ends
    the bar, not the training. Losses, images/s and time left are exponential means.

    Args:
        title: names fold and stage.
        iterations: steps of the stage.
        stream: None is standard error.
        share: of the stage between two lines.
        clock: seconds; for tests.
    """

    def __init__(
        self,
        title: str,
        iterations: int,
        stream: IO[str] | None = None,
        share: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title, self._clock = title, clock
        self._bar = ProgressBar(title, iterations, stream, remaining=False, clock=clock)
        self._every = max(1, round(iterations * share))
        self._losses: dict[str, Smoothed] = {}
        self._images, self._seconds, self._wall = Smoothed(), Smoothed(), Smoothed()
        self._before: float | None = None

    def on_step(self, report: StepReport, model: nn.Module) -> None:
        """Move the bar; write a line when another share is done."""
        self._count(report)
        line_due = report.step % self._every == 0 or report.step == report.iterations
        if not (self._bar.due(report.step) or line_due):
            return
        text = self._text(report)
        self._bar.advance(report.step, text)
        if line_due:
            LOGGER.info("%s: step %d of %d, %s", self._title, report.step, report.iterations, text)

    def on_end(self, finished: bool) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def _count(self, report: StepReport) -> None:
        for name, value in report.losses.items():
            self._losses.setdefault(name, Smoothed()).add(value)
        self._images.add(report.images)
        self._seconds.add(report.seconds)
        now = self._clock()
        # from call to call, so that checkpoints and pictures count for the time left
        self._wall.add(report.seconds if self._before is None else now - self._before)
        self._before = now

    def _text(self, report: StepReport) -> str:
        losses = {name: mean.value for name, mean in self._losses.items()}
        total = losses.pop("loss", sum(losses.values()))
        parts = ", ".join(f"{name.removeprefix('loss_')} {value:.3f}" for name, value in losses.items())
        speed = self._images.value / self._seconds.value if self._seconds.value else 0.0
        left = timedelta(seconds=round(self._wall.value * (report.iterations - report.step)))
        text = f"loss {total:.3f}, {left} left, {speed:.1f} images/s, {memory_gb():.1f} GB"
        return (
            f"{text} ({parts})" if parts else text
        )  # last, since a narrow terminal shows the beginning only
