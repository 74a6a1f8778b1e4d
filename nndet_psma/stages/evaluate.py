"""Stage evaluate: predictions against labels, by the type of the result."""

from __future__ import annotations

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.stages.evaluate_boxes import BoxEvaluation, evaluate_boxes


def evaluate(
    paths: TaskPaths,
    folder: ModelFolder,
    fold: int,
    *,
    test: bool,
    seed: int,
    compare: ModelFolder | None = None,
) -> BoxEvaluation:
    """Score the validation or the test predictions of a model and write what was scored.

    Raises:
        UserError: no predictions, or no labels for them.
    """
    return evaluate_boxes(paths, folder, fold, test=test, seed=seed, compare=compare)
