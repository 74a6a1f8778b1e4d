"""Progress bars: rich on a terminal, silent otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Reports progress."""

    def __call__(self, done: int, note: str = "") -> None:
        """``done`` of the total are finished; ``note`` is shown beside the bar."""
        ...


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Advance]:
    """Yield ``advance(done, note)``; shows a bar on standard error when that is a terminal."""
    if not sys.stderr.isatty():
        yield _silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, note="")

        def advance(done: int, note: str = "") -> None:
            bar.update(task, completed=done, note=note)

        yield advance


def _silent(done: int, note: str = "") -> None:
    """Nobody watches."""
