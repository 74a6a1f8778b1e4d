"""Stage evaluate: predictions against the truth, by the type of the result."""

from __future__ import annotations

from typing import Protocol

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.artifacts.results import Call, Judged, Result, for_type
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.stages.evaluate_boxes import BoxEvaluation, evaluate_boxes
from nndet_psma.stages.evaluate_judged import JudgedEvaluation, evaluate_judged
from nndet_psma.systems.system import model_system

Evaluation = BoxEvaluation | JudgedEvaluation


class Evaluator(Protocol):
    """Scores the results of one type; takes what :func:`evaluate` takes."""

    def __call__(
        self,
        paths: TaskPaths,
        folder: ModelFolder,
        fold: int,
        *,
        test: bool,
        seed: int,
        compare: ModelFolder | None = None,
    ) -> Evaluation:
        """Score and write."""


EVALUATORS: dict[type[Result], Evaluator] = {
    Prediction: evaluate_boxes,
    Judged: evaluate_judged,
    Call: evaluate_judged,
}
"""By type of result; a derived type is scored as the nearest one it is derived from."""


def evaluate(
    paths: TaskPaths,
    folder: ModelFolder,
    fold: int,
    *,
    test: bool,
    seed: int,
    compare: ModelFolder | None = None,
) -> Evaluation:
    """Score the validation or the test predictions of a model and write what was scored.

    Args:
        paths: of the task.
        folder: the model.
        fold: which fold, -1 for the consolidated model.
        test: test or validation predictions.
        seed: of the bootstrap.
        compare: another model to compare with on the same cases.

    Raises:
        UserError: no predictions, no truth for them, or results of a type that nobody scores.
    """
    system, _ = model_system(folder, fold)
    evaluator = for_type(EVALUATORS, system.result_type, "scored")
    return evaluator(paths, folder, fold, test=test, seed=seed, compare=compare)
