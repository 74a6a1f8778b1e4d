"""Progress: a bar on a terminal, a plain line every few percent elsewhere; a closed stream ends it, never the work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Protocol

from nndet_psma.core.terminal import is_quiet, printable, safe_console

if TYPE_CHECKING:
    from rich.progress import Progress

_BAR_WIDTH = 20
_CLOSED = (OSError, ValueError)  # the stream was closed (ValueError), or its other end went away
_REFRESH_SECONDS = 0.2  # as often as an eye can follow; drawing costs a few milliseconds
_LINE_SHARE = 0.05  # of the work between two plain lines
_LINE_SECONDS = 10.0  # at least, so that short work leaves the log of a job short


class Advance(Protocol):
    """Reports progress."""

    def __call__(self, done: int, note: str = "") -> None:
        """``done`` of the total are finished; ``note`` is shown beside the bar."""
        ...


class ProgressBar:
    """A bar on a terminal; elsewhere (a job's output file, a pipe) a plain line every few percent.

    It is drawn by the caller's own thread and only from :meth:`advance`, so that a terminal that goes away (a closed
    connection) is noticed there and ends the bar quietly. Lines are at least ten seconds apart: work that takes less
    writes none.

    Args:
        title: shown before the bar.
        total: what there is to do.
        stream: where to; None is standard error.
        remaining: whether the time left is estimated here (off when the note has a better one).
        clock: seconds; for tests.
    """

    def __init__(
        self,
        title: str,
        total: int,
        stream: IO[str] | None = None,
        *,
        remaining: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        stream = sys.stderr if stream is None else stream
        self._bar: Progress | None = None
        self._open = stream is not None and not is_quiet()
        self._terminal = _is_terminal(stream)
        self._stream, self._remaining, self._clock = stream, remaining, clock
        self._title, self._total = title, total
        self._drawn = -float("inf")
        self._begun = self._told = (
            clock(),
            0,
        )  # clock and done: of the first call, and of the last plain line
        self._lines = 0
        self._called = False

    @property
    def shown(self) -> bool:
        """Whether a bar can be seen now."""
        return self._open and self._terminal

    def due(self, done: int) -> bool:
        """Whether :meth:`advance` would show something: notes that cost time are made only then."""
        self._begin(done)
        return self._open and (self._terminal or self._line_due(done))

    def advance(self, done: int, note: str = "") -> None:
        """``done`` of the total are finished; the first call draws the bar and says where the work begins."""
        if not self._open:
            return
        self._begin(done)
        if not self._terminal:
            if self._line_due(done):
                self._or_never_again(lambda: self._write_line(done, note))
            return
        if self._bar is None:
            self._bar = _started_bar(self._stream, self._remaining)
            if self._bar is None:
                self._open = False
                return
            self._bar.add_task(self._title, total=self._total, completed=done, note=note)
        self._bar.update(self._bar.task_ids[0], completed=done, note=note)
        now = time.monotonic()
        if now - self._drawn >= _REFRESH_SECONDS or done >= self._total:
            self._drawn = now
            self._or_never_again(self._bar.refresh)

    def close(self) -> None:
        """Leave the last state of the bar on the terminal."""
        if self._bar is not None and self._open:
            self._or_never_again(self._bar.stop)
        self._open = False

    def _begin(self, done: int) -> None:
        if not self._called:
            self._called, self._begun, self._told = True, (self._clock(), done), (self._begun[0], done)

    def _line_due(self, done: int) -> bool:
        told_at, told = self._told
        if done <= told:
            return False
        if done >= self._total and self._lines:
            return True
        far = done - told >= _LINE_SHARE * self._total or done >= self._total
        return far and self._clock() - told_at >= _LINE_SECONDS

    def _write_line(self, done: int, note: str) -> None:
        now = self._clock()
        share = f" ({done / self._total:.0%})" if self._total else ""
        text = f"{self._title}: {done}/{self._total}{share}"
        started, before = self._begun
        if self._remaining and before < done < self._total:
            left = (now - started) / (done - before) * (self._total - done)
            text += f", {timedelta(seconds=round(left))} left"
        self._told, self._lines = (now, done), self._lines + 1
        self._stream.write(printable(f"{text}, {note}" if note else text) + "\n")
        self._stream.flush()

    def _or_never_again(self, draw: Callable[[], None]) -> None:
        try:
            draw()
        except _CLOSED:
            self._open = False
            _let_go(self._bar)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Advance]:
    """Yield ``advance(done, note)``, which shows a :class:`ProgressBar` on standard error."""
    bar = ProgressBar(title, total)
    try:
        bar.advance(0)
        yield bar.advance
    finally:
        bar.close()


def _is_terminal(stream: IO[str] | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except _CLOSED:
        return False


def _started_bar(stream: IO[str], remaining: bool) -> Progress | None:
    """A bar without a thread of its own; None without rich, which a bare machine may lack."""
    try:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            Task,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.table import Column
        from rich.text import Text
    except ImportError:
        return None

    class _NoteColumn(TextColumn):
        def render(self, task: Task) -> Text:
            # one line, whatever the width: the others keep theirs
            return Text(printable(str(task.fields["note"])), no_wrap=True, overflow="ellipsis")

    columns = [TextColumn("{task.description}"), BarColumn(_BAR_WIDTH), MofNCompleteColumn()]
    columns += [TimeRemainingColumn()] if remaining else []
    note = _NoteColumn("", table_column=Column(no_wrap=False))
    bar = Progress(*columns, note, console=safe_console(stream), auto_refresh=False)
    try:
        bar.start()
    except _CLOSED:
        _let_go(bar)
        return None
    return bar


def _let_go(bar: Progress | None) -> None:
    """Have rich give back standard output and error, which it wraps while a bar is shown."""
    if bar is not None:
        with suppress(*_CLOSED):  # it tries to draw once more
            bar.stop()
