"""The folders and variables by which nnU-Net finds data, results and our trainer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.systems.nodeseg.sampling import SETTINGS_VARIABLE

EXT_FOLDER = Path(__file__).resolve().parent / "ext"
"""Holds nothing but a re-export of the trainer: nnU-Net imports every module of a folder it is told to search."""

EXT_VARIABLE = "nnUNet_extTrainer"

RESULTS = "nnunet"
"""Folder of nnU-Net's results inside a model folder."""


@dataclass(frozen=True)
class NnunetPaths:
    """nnU-Net's folders of one task, below its ``preprocessed/nnunet``; nothing is created by looking one up.

    Attributes:
        root: ``preprocessed/nnunet``.
        dataset: nnU-Net's name ``DatasetXXX_Name``.
    """

    root: Path
    dataset: str

    @classmethod
    def of(cls, paths: TaskPaths, dataset: str) -> NnunetPaths:
        """Folders of a task."""
        return cls(paths.preprocessed / "nnunet", dataset)

    @property
    def raw(self) -> Path:
        """Exported images and labels."""
        return self.root / "raw" / self.dataset

    @property
    def preprocessed(self) -> Path:
        """Plans, splits and preprocessed cases."""
        return self.root / "preprocessed" / self.dataset

    def plans(self, plan_id: str) -> Path:
        """nnU-Net's own plans of our plan."""
        return self.preprocessed / f"{plan_id}.json"


def environment(nnunet: NnunetPaths | None, results: Path) -> dict[str, str]:
    """Variables for nnU-Net's own commands on the same folders.

    Args:
        nnunet: folders of the task; None where only a model is at hand.
        results: what nnU-Net calls ``nnUNet_results``: the folder ``nnunet`` in a model folder.
    """
    others = [text for text in os.environ.get(EXT_VARIABLE, "").split(os.pathsep) if text.strip()]
    trainers = list(dict.fromkeys([str(EXT_FOLDER), *others]))
    found = {"nnUNet_results": str(results), EXT_VARIABLE: os.pathsep.join(trainers)}
    if nnunet is not None:
        found["nnUNet_raw"] = str(nnunet.root / "raw")
        found["nnUNet_preprocessed"] = str(nnunet.root / "preprocessed")
    return found


def settings_variable(changes: Mapping[str, Any]) -> dict[str, str]:
    """The variable that carries changed training settings to the trainer, in whatever process it is started."""
    return {SETTINGS_VARIABLE: json.dumps(changes, sort_keys=True)} if changes else {}


@contextmanager
def entered(variables: Mapping[str, str]) -> Iterator[None]:
    """``variables`` in this process's environment while the block runs."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
