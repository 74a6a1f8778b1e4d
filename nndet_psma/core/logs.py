"""Log files: what a stage did and when, beside its results."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nndet_psma.core.terminal import printable

LOGGER = logging.getLogger("nndet_psma")


@contextmanager
def log_to(file: Path) -> Iterator[None]:
    """Append messages of :data:`LOGGER` to ``file`` while the block runs; an exception is logged, too."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(message)s"))
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


class _Lines(logging.Formatter):
    """Lines that a terminal can show: logs are read on one."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
