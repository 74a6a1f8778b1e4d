"""Ctrl-C and SIGTERM end a training between two steps, after saving."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Training was asked to stop; everything is saved, and the same command goes on.

    Attributes:
        exit_code: 130 after Ctrl-C, 143 after SIGTERM: what a shell reports for the signals.
    """

    def __init__(self, number: int, step: int) -> None:
        self.exit_code = 128 + number
        super().__init__(
            f"{signal.Signals(number).name} at step {step}, which is saved; start the same command again to go on"
        )


class StopRequest:
    """While the block runs, the first Ctrl-C or SIGTERM is remembered; a second Ctrl-C interrupts at once.

    Signals reach the main thread only; elsewhere the block changes nothing.

    Attributes:
        number: of the signal; 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        try:
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._remember)
        except ValueError:  # not the main thread
            self._before = {}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: FrameType | None) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
