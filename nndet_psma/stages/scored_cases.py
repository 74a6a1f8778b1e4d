"""Which cases are scored: predictions of one split, and the labels they must have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from nndet_psma.artifacts.model_folder import TEST_PREDICTIONS, VAL_PREDICTIONS, ModelFolder
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.artifacts.results import Result
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.cases import RawCase, list_cases
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.systems.system import model_system

R = TypeVar("R", bound=Result)


def predictions_folder(folder: ModelFolder, fold: int, test: bool) -> Path:
    """Folder of the results of a fold's validation or test cases."""
    return folder.fold(fold) / (TEST_PREDICTIONS if test else VAL_PREDICTIONS)


def results_folder(folder: ModelFolder, fold: int, test: bool) -> Path:
    """Folder of the scores."""
    return folder.fold(fold) / ("test_results" if test else "val_results")


def box_type(folder: ModelFolder, fold: int) -> type[Prediction]:
    """The type of the boxes that a model finds.

    Raises:
        UserError: it says something else of a case.
    """
    system, _ = model_system(folder, fold)
    if not issubclass(system.result_type, Prediction):
        raise UserError(
            f"models of {system.name} find no lesions",
            file=folder.fold(fold),
            expected="a model of a detector or of node segmentation",
        )
    return system.result_type


def labelled_cases(paths: TaskPaths, description: DatasetDescription, split: str) -> dict[str, RawCase]:
    """Cases with a label, by id.

    Raises:
        UserError: there is none.
    """
    cases = {case.case_id: case for case in list_cases(paths, description, split) if case.label is not None}
    if not cases:
        raise UserError(
            "holds no labels, so nothing can be scored",
            file=paths.labels(split),
            remedy="Add the labels of the cases",
        )
    return cases


def read_results(kind: type[R], folder: Path, cases: Mapping[str, RawCase], test: bool) -> list[R]:
    """The results in a folder; each must have a label, and of test cases none may be missing.

    Raises:
        UserError: no results, one without label, or a test case without result.
    """
    files = sorted(folder.glob(f"*{kind.suffix}"))
    if not files:
        raise UserError(
            "holds no predictions",
            file=folder,
            remedy="Run nndet_predict first"
            if test
            else "Run nndet_sweep or nndet_consolidate --sweep_boxes first",
        )
    results = [kind.read(file) for file in files]
    unlabelled = [result.case_id for result in results if result.case_id not in cases]
    if unlabelled:
        raise UserError(
            f"predicted case {unlabelled[0]} has no label", file=folder, remedy="Add its label file"
        )
    missing = sorted(set(cases) - {result.case_id for result in results}) if test else []
    if missing:
        raise UserError(
            f"test case {missing[0]} is not predicted", file=folder, remedy="Run nndet_predict again"
        )
    return results
