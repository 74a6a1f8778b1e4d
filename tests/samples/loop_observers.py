"""Observers of the loop, for tests."""

from __future__ import annotations

import os
from collections.abc import Callable

from nndet_psma.trainers.observer import StepReport


class After:
    """Does something after a step: by default what a crash looks like."""

    def __init__(self, step: int, action: Callable[[], None] | None = None) -> None:
        self.step, self.action = step, action

    def on_step(self, report, model):
        if report.step == self.step:
            if self.action is None:
                raise KeyboardInterrupt
            self.action()

    def on_end(self, finished):
        pass


class SendSignal(After):
    """Sends this process a signal after a step."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__(step, lambda: os.kill(os.getpid(), number))


class Record:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.reports: list[StepReport] = []
        self.ends: list[bool] = []

    def on_step(self, report, model):
        self.reports.append(report)

    def on_end(self, finished):
        self.ends.append(finished)
