"""Log files: what a stage did and when, beside its results."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nndet_psma.core.relative_paths import relative_text
from nndet_psma.core.terminal import printable

LOGGER = logging.getLogger("nndet_psma")


@contextmanager
def log_to(file: Path, *folders: Path) -> Iterator[None]:
    """Append messages of :data:`LOGGER` to ``file`` while the block runs; an exception is logged, too.

    Args:
        file: of the log.
        folders: paths below them are written relative to them, for logs are handed on.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(_RelativePaths(folders))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    except BaseException as error:
        LOGGER.error("stopped: %s: %s", type(error).__name__, error)
        raise
    finally:
        LOGGER.removeHandler(handler)
        handler.close()


class _RelativePaths(logging.Formatter):
    """Lines that a terminal can show and that name no folder above the task."""

    def __init__(self, folders: Sequence[Path]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self._folders = folders

    def format(self, record: logging.LogRecord) -> str:
        return printable(relative_text(super().format(record), *self._folders))
