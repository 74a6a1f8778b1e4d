"""metrics.csv of a stage: one row per logged step, rewritten from the checkpoint's row on when training resumes."""

from __future__ import annotations

import csv
from pathlib import Path

from nndet_psma.core.atomic import atomic_file

_FIELDS = ("step", "learning_rate", "loss", "seconds_per_step", "images_per_second", "memory_gb")


class MetricsLog:
    """Rows in memory and on disk; ``keep`` rows of an earlier run survive."""

    def __init__(self, file: Path, keep: int) -> None:
        self.file = file
        self.rows: list[dict[str, str]] = []
        if keep and file.is_file():
            with file.open(newline="") as handle:
                self.rows = list(csv.DictReader(handle))[:keep]

    def add(self, losses: dict[str, float], **values: float) -> None:
        """Append one row; ``losses`` are the detector's parts."""
        row = {name: f"{value:.6g}" for name, value in {**values, **losses}.items()}
        self.rows.append(row)

    def write(self) -> None:
        """Write all rows atomically."""
        extra = sorted({name for row in self.rows for name in row} - set(_FIELDS))
        with atomic_file(self.file) as temporary, temporary.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, [*_FIELDS, *extra], restval="")
            writer.writeheader()
            writer.writerows(self.rows)
