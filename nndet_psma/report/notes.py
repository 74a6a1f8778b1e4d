"""What a report lacks, and the command that makes each of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from nndet_psma.artifacts.model_folder import CONSOLIDATED, ModelFolder
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import SchemaError
from nndet_psma.report.page.content import Missing

T = TypeVar("T")


class Commands:
    """The commands that make what is missing, for the test or the validation cases of a fold (-1: consolidated)."""

    def __init__(self, folder: ModelFolder, fold: int, test: bool) -> None:
        task, model = folder.root.parent.name, folder.root.name
        one_fold = f"nndet_sweep {task} {model} {fold}"
        tune = f"nndet_consolidate {task} {model} --sweep_boxes" if fold == CONSOLIDATED else one_fold
        self.evaluate = f"nndet_eval {task} {model} {fold}" + (" --test" if test else "")
        self.of = {
            "inference": ("the thresholds", tune),
            "sweep": ("the landscape of the thresholds", tune),
            "records": ("curve and cases, because records.json", self.evaluate),
            "objects": ("curve, histogram and table of what was judged, because objects.csv", self.evaluate),
            "ablation": ("the ablation", self.evaluate),
            "fingerprint": ("the measured properties of the training data", f"nndet_prep {task}"),
            "strata": ("scores by kind of lesion and by other meanings of a hit", self.evaluate),
            "comparison": ("a comparison with another model", f"{self.evaluate} --compare OTHER_MODEL"),
            "metrics": ("training curves", f"nndet_train {task}"),
            "environment": ("versions of the training", f"nndet_train {task}"),
        }


class Notes:
    """Collects what is missing, by the keys of ``ReportSource.missing``."""

    def __init__(self, commands: Commands) -> None:
        self.commands = commands
        self.missing: dict[str, Missing] = {}

    def optional(self, key: str, file: Path, read: Callable[[Path], T]) -> T | None:
        """The content of ``file``; a missing or damaged one is noted under ``key``."""
        if not file.is_file():
            self.note(key, f"{file.name} is missing")
            return None
        try:
            return read(file)
        except (UserError, SchemaError, KeyError, TypeError) as error:
            self.note(key, f"{file.name} cannot be read ({error})")
            return None

    def note(self, key: str, reason: str) -> None:
        """Note ``key`` as missing for ``reason``."""
        what, command = self.commands.of[key]
        self.missing[key] = Missing(f"{what}: {reason}.", command)
