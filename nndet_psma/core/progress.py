"""Progress bars: rich on a terminal, silent otherwise; a stream that closes ends the bar, never the work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Protocol

from nndet_psma.core.terminal import printable, safe_console

if TYPE_CHECKING:
    from rich.progress import Progress

_BAR_WIDTH = 20
_CLOSED = (OSError, ValueError)  # the stream was closed (ValueError), or its other end went away
_REFRESH_SECONDS = 0.2  # as often as an eye can follow; drawing costs a few milliseconds


class Advance(Protocol):
    """Reports progress."""

    def __call__(self, done: int, note: str = "") -> None:
        """``done`` of the total are finished; ``note`` is shown beside the bar."""
        ...


class ProgressBar:
    """A bar on a terminal, nothing elsewhere.

    It is drawn by the caller's own thread and only from :meth:`advance`, so that a terminal that goes away (a closed
    connection) is noticed there and ends the bar quietly.

    Args:
        title: shown before the bar.
        total: what there is to do.
        stream: where to; None is standard error.
        remaining: whether rich estimates the time left (off when the note has a better one).
    """

    def __init__(
        self, title: str, total: int, stream: IO[str] | None = None, *, remaining: bool = True
    ) -> None:
        stream = sys.stderr if stream is None else stream
        self._bar: Progress | None = None
        self._open = _is_terminal(stream)
        self._stream, self._remaining = stream, remaining
        self._title, self._total = title, total
        self._drawn = -float("inf")

    @property
    def shown(self) -> bool:
        """Whether somebody can see it."""
        return self._open

    def advance(self, done: int, note: str = "") -> None:
        """``done`` of the total are finished; the first call draws the bar and says where the work begins."""
        if not self._open:
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

    def _or_never_again(self, draw: Callable[[], None]) -> None:
        try:
            draw()
        except _CLOSED:
            self._open = False
            _let_go(self._bar)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Advance]:
    """Yield ``advance(done, note)``; shows a bar on standard error when that is a terminal."""
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
