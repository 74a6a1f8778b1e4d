"""metrics.csv of a stage: one row every few steps, rewritten from the checkpoint's row on when training resumes."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nndet_psma.core.atomic import atomic_file
from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER
from nndet_psma.trainers.observer import StepReport

if TYPE_CHECKING:
    from torch import nn

METRICS_FILE = "metrics.csv"
VALIDATION = "val_"  # begins the name of a column that validation gave
_FIELDS = ("step", "learning_rate", "loss", "seconds_per_step", "images_per_second", "memory_gb")
_WRITE_SECONDS = 15.0  # between checkpoints the file is for those who look at it while training runs
_LOSS, _NOTE = "loss:", "note:"


class StepMeans:
    """Sums over the steps since the last row, as a flat dictionary that a checkpoint can keep."""

    def __init__(self, sums: Mapping[str, float] | None = None) -> None:
        self.sums = dict(sums or {})

    def add(self, report: StepReport) -> None:
        """Count one step."""
        values = {"steps": 1, "images": report.images, "seconds": report.seconds}
        values |= {_LOSS + name: value for name, value in report.losses.items()}
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def note(self, **values: float) -> None:
        """Values that are no mean, such as a validation score; the row that is taken next holds them."""
        self.sums |= {_NOTE + name: float(value) for name, value in values.items()}

    def take(self, report: StepReport) -> dict[str, float]:
        """The row at ``report``'s step: means of losses and speed, the present rate and memory; sums start anew."""
        sums, self.sums = self.sums, {}
        steps, seconds = sums.get("steps", 0.0), sums.get("seconds", 0.0)
        row = {
            "step": float(report.step),
            "learning_rate": report.learning_rate,
            "seconds_per_step": seconds / steps if steps else 0.0,
            "images_per_second": sums.get("images", 0.0) / seconds if seconds else 0.0,
            "memory_gb": memory_gb(),
        }
        row |= {name.removeprefix(_LOSS): v / steps for name, v in sums.items() if name.startswith(_LOSS)}
        return row | {name.removeprefix(_NOTE): v for name, v in sums.items() if name.startswith(_NOTE)}


class MetricsLog:
    """Rows in memory and on disk; an observer of the loop.

    Columns: ``step``; ``learning_rate`` of that step; ``loss`` and its parts, **means over the steps since the row
    before**; ``seconds_per_step`` and ``images_per_second`` over the same steps; ``memory_gb``, see :func:`memory_gb`;
    then whatever was noted. There is a row every ``every`` steps and one at the end of the stage.

    A checkpoint keeps ``len(rows)`` and ``pending``. A run that resumes with both writes the rows of an uninterrupted
    one, but for the three columns of time and memory; rows after the checkpoint are dropped.

    Args:
        file: ``metrics.csv``.
        keep: rows of an earlier run that stay.
        every: steps between rows.
        pending: sums of steps that have no row yet, from the checkpoint; None when there are none.
    """

    def __init__(
        self, file: Path, keep: int, every: int = 1, pending: Mapping[str, float] | None = None
    ) -> None:
        self.file, self.every = file, every
        self.rows: list[dict[str, str]] = []
        if keep and file.is_file():
            with file.open(newline="", encoding="utf-8") as handle:
                self.rows = list(csv.DictReader(handle))[:keep]
        self._means = StepMeans(pending)
        self._written = time.monotonic()

    @property
    def pending(self) -> dict[str, float]:
        """Sums of the steps that have no row yet: belongs into the checkpoint, beside ``len(rows)``."""
        return dict(self._means.sums)

    def note(self, **values: float) -> None:
        """Put values, such as ``val_ap``, into the row of the step just made, or else into the next row."""
        if self.rows and not self._means.sums:
            self.rows[-1] |= {name: _text(name, value) for name, value in values.items()}
        else:
            self._means.note(**values)

    def on_step(self, report: StepReport, model: nn.Module) -> None:
        """Count the step; every few steps add a row, and now and then write the file."""
        self._means.add(report)
        if report.step % self.every and report.step != report.iterations:
            return
        self.rows.append({name: _text(name, value) for name, value in self._means.take(report).items()})
        if time.monotonic() - self._written >= _WRITE_SECONDS:
            self.write()

    def on_end(self, finished: bool) -> None:
        """Write what there is; after an error a failing disk must not hide that error."""
        try:
            self.write()
        except (OSError, UserError) as error:
            if finished:
                raise
            LOGGER.warning("metrics not written: %s", error)

    def write(self) -> None:
        """Write all rows atomically."""
        extra = sorted({name for row in self.rows for name in row} - set(_FIELDS))
        with (
            atomic_file(self.file) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as handle,
        ):
            writer = csv.DictWriter(handle, [*_FIELDS, *extra], restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        self._written = time.monotonic()


def read_metrics(file: Path) -> list[dict[str, float]]:
    """Rows of a ``metrics.csv`` as numbers; cells that are none are left out, and rows without a step."""
    rows = []
    with file.open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            numbers = {name: number for name, text in row.items() if (number := _number(text)) is not None}
            if "step" in numbers:
                rows.append(numbers)
    return rows


def memory_gb() -> float:
    """Most GPU memory that PyTorch has held, else what this process holds of the machine's; GB of 10^9 bytes.

    On the CPU loader processes are not counted. 0 where the system does not tell.
    """
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_reserved() / 1e9)
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9
    return _peak_resident_gb()


def _peak_resident_gb() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2) of the two systems differs
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _text(name: str, value: float) -> str:
    return str(int(value)) if name == "step" else f"{value:.6g}"


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except (TypeError, ValueError):
        return None
