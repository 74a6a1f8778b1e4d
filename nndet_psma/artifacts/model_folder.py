"""Layout of a trained model: ``det_models/<task>/<module>_<plan>/{fold<k>, consolidated}/<stage>/``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import overload

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.plan import Plan
from nndet_psma.artifacts.plan_file import P, read_plan
from nndet_psma.core.errors import UserError, did_you_mean
from nndet_psma.dataset.task.paths import find_task, models_root

CONSOLIDATED = -1
PLAN = "plan.json"
INFERENCE_PLAN = "plan_inference.json"
WEIGHTS = "model.safetensors"
TEST_PREDICTIONS = "test_predictions"
VAL_PREDICTIONS = "val_predictions"
RAW = "raw"
"""Boxes before any post-processing, in a folder of predictions."""
VALIDATION_RAW = "sweep_predictions"
"""The same of a fold's validation cases, in the folder of the fold."""
FINISHED = "finished"
"""In a consolidated model: hash of what it was put together from."""


@dataclass(frozen=True)
class ModelFolder:
    """One trained model.

    Attributes:
        root: ``det_models/<task>/<model>``.
    """

    root: Path

    def fold(self, fold: int) -> Path:
        """Folder of a fold; -1 is the consolidated model, as in nnDetection."""
        return self.root / ("consolidated" if fold == CONSOLIDATED else f"fold{fold}")

    @overload
    def plan(self, fold: int) -> Plan: ...
    @overload
    def plan(self, fold: int, kind: type[P]) -> P: ...
    def plan(self, fold: int, kind: type[Plan] = Plan) -> Plan:
        """The plan the fold was trained with, of whichever system, or of those whose plans are of a ``kind``.

        Raises:
            UserError: there is no such model, its plan cannot be read, or is of another kind.
        """
        file = self.fold(fold) / PLAN
        if not file.is_file():
            raise UserError(
                "holds no trained model" if fold != CONSOLIDATED else "is not consolidated",
                file=self.fold(fold),
                remedy="Run nndet_train first" if fold != CONSOLIDATED else "Run nndet_consolidate first",
            )
        return read_plan(file, kind)

    def inference_plan(self, fold: int) -> InferencePlan:
        """Tuned thresholds of a fold or of the consolidated model.

        Raises:
            UserError: there is no such model, or its thresholds are not tuned yet.
        """
        self.plan(fold)
        file = self.fold(fold) / INFERENCE_PLAN
        if not file.is_file():
            raise UserError(
                "thresholds are not tuned yet", file=file, remedy="Run nndet_sweep (or nndet_train --sweep)"
            )
        return InferencePlan.read(file)

    def weights(self, fold: int, stage: str, source_fold: int | None = None) -> Path:
        """Weights of a stage; in the consolidated model those of ``source_fold``."""
        folder = self.fold(fold)
        if source_fold is not None and fold == CONSOLIDATED:
            folder = folder / f"fold{source_fold}"
        return folder / stage / WEIGHTS

    def trained_folds(self) -> list[int]:
        """Folds that have a folder, ascending."""
        names = [path.name.removeprefix("fold") for path in self.root.glob("fold*") if path.is_dir()]
        return sorted(int(name) for name in names if name.isdigit())


def open_model(path: Path) -> tuple[ModelFolder, int]:
    """The model in a folder, wherever it lies, and which fold of it is meant.

    Args:
        path: model folder (its consolidated model is meant), or the folder ``consolidated`` or ``fold<k>`` in it.

    Raises:
        UserError: no model there.
    """
    if (path / "consolidated" / PLAN).is_file():
        return ModelFolder(path), CONSOLIDATED
    number = path.name.removeprefix("fold")
    if (path / PLAN).is_file() and path.name == "consolidated":
        return ModelFolder(path.parent), CONSOLIDATED
    if (path / PLAN).is_file() and path.name.startswith("fold") and number.isdigit():
        return ModelFolder(path.parent), int(number)
    trained = ModelFolder(path).trained_folds()
    raise UserError(
        "is not consolidated" if trained else "holds no trained model",
        file=path,
        expected="a model folder with 'consolidated' in it, one of its folds, or a zip of export-model",
        remedy="Run nndet_consolidate, or give the folder of a fold" if trained else None,
    )


def find_model(task: str, model: str) -> ModelFolder:
    """The model ``model`` of a task; the task's data need not be there.

    Raises:
        UserError: unknown task or model; lists what exists.
    """
    root = models_root()
    task_folder = root / task_folder_name(task)
    if not task_folder.is_dir():
        raise _unknown(f"no models of task '{task}'", task, root)
    folder = task_folder / model
    if not folder.is_dir():
        raise _unknown(f"unknown model '{model}'", model, task_folder)
    return ModelFolder(folder)


def _unknown(what: str, name: str, parent: Path) -> UserError:
    known = sorted(p.name for p in parent.iterdir() if p.is_dir())
    return UserError(
        what,
        file=parent,
        expected=f"one of: {', '.join(known) or 'none'}",
        remedy=did_you_mean(name, known),
    )


def task_folder_name(task: str) -> str:
    """Folder name of a task from models or data: "100", "Name" and "Task100_Name" all work."""
    root = models_root()
    names = [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    matching = [name for name in names if task == name or (_parts(name) and task in _parts(name))]
    if len(matching) == 1:
        return matching[0]
    return find_task(task).name


def _parts(folder: str) -> tuple[str, ...]:
    number, _, name = folder.removeprefix("Task").partition("_")
    return (number, name, str(int(number))) if folder.startswith("Task") and number.isdigit() else ()
