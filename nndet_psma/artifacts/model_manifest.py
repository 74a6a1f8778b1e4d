"""manifest.json: what a model archive holds, and the hash of every file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar

from nndet_psma.artifacts.artifact import Artifact
from nndet_psma.core.schema import AtMost, Number, Within

MANIFEST = "manifest.json"
TASK_NAME = re.compile(r"Task\d{3}_\w[\w-]{0,149}", re.ASCII)
MODEL_NAME = re.compile(r"\w[\w.+-]{0,199}", re.ASCII)  # file systems end at 255 bytes


@dataclass(frozen=True)
class FileEntry:
    """One file of the archive: its size in bytes and its SHA-256 (hexadecimal)."""

    bytes: Annotated[int, Within(0, 1 << 40)]
    sha256: Annotated[str, AtMost(64)]


@dataclass(frozen=True)
class ModelManifest(Artifact):
    """Contents of an archive.

    Attributes:
        package_version: of the package that wrote it.
        task: folder name of the task.
        model: folder name of the model.
        folds: folds whose weights predict together.
        training_cases: number of cases of each fold (training, validation); their names stay with the sender.
        licence: what the sender says about using the weights.
        files: every other file, by path.
    """

    schema: ClassVar[str] = "nndet_psma.model"
    remade_by: ClassVar[str] = "nndet_psma export-model"

    package_version: Annotated[str, AtMost(100)]
    task: str
    model: str
    folds: Annotated[list[Number], AtMost(1000)]
    training_cases: list[tuple[int, int]]
    licence: Annotated[str, AtMost(10_000)]
    files: dict[str, FileEntry]

    def __post_init__(self) -> None:
        for kind, name, pattern in (("task", self.task, TASK_NAME), ("model", self.model, MODEL_NAME)):
            if not pattern.fullmatch(name):
                raise ValueError(f"{name[:200]!r} is no {kind} name")
