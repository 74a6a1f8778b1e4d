"""Results of validation cases, each by the fold that has not seen it: what every system tunes on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import INFERENCE_PLAN, VAL_PREDICTIONS, ModelFolder
from nndet_psma.artifacts.results import Result

R = TypeVar("R", bound=Result)


def read_out_of_fold(model: ModelFolder, kind: type[R], folds: Sequence[int]) -> list[R]:
    """What :meth:`~nndet_psma.systems.system.System.validate` has left in the folders of ``folds``, sorted by case.

    Raises:
        UserError: a validation case has no result.
    """
    results = [
        kind.read(kind.file(model.fold(fold) / VAL_PREDICTIONS, case_id))
        for fold in folds
        for case_id in model.plan(fold).folds[fold].val
    ]
    return sorted(results, key=lambda result: result.case_id)


def write_tuned(
    model: ModelFolder, fold: int, tuned: InferencePlan, kind: type[R], results: Iterable[R]
) -> None:
    """Write what was tuned, and the results that it gives, into the folder of ``fold`` (-1: the consolidated model)."""
    target = model.fold(fold)
    tuned.write(target / INFERENCE_PLAN)
    for old in (target / VAL_PREDICTIONS).glob(f"*{kind.suffix}"):
        if old.name.removesuffix(kind.suffix) not in tuned.cases:
            old.unlink()  # of a case that another plan validated here
    for result in results:
        result.write(kind.file(target / VAL_PREDICTIONS, result.case_id))
