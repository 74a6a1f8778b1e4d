"""Judgements scored: one verdict per object, or per case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.results import Call, Judged, Result
from nndet_psma.core.atomic import write_json
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.task.cases import RawCase, list_cases
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.evaluation.judgements.compare import JudgementComparison, compare_judgements
from nndet_psma.evaluation.judgements.row import JudgedRow, scored_rows
from nndet_psma.evaluation.judgements.scores import JudgementScores, score_judgements
from nndet_psma.evaluation.judgements.shortcuts import ShortcutTable, shortcut_table
from nndet_psma.evaluation.judgements.table import write_objects
from nndet_psma.stages.scored_cases import labelled_cases, predictions_folder, read_results, results_folder
from nndet_psma.systems.judged_rows import judged_rows
from nndet_psma.systems.system import model_system

BOOTSTRAP_DRAWS = 1000
OBJECTS = "objects.csv"
SHORTCUTS = "shortcuts.json"


@dataclass(frozen=True)
class JudgedEvaluation:
    """Everything that was scored; also written to ``folder``.

    Attributes:
        folder: of the scores.
        rows: every judged object (or case), those without a truth included.
        scores: of those with a truth.
        comparison: with another model.
        shortcuts: what simple models reach on the same objects; None where the system has none.
    """

    folder: Path
    rows: list[JudgedRow]
    scores: JudgementScores
    comparison: JudgementComparison | None = None
    shortcuts: ShortcutTable | None = None


def evaluate_judged(
    paths: TaskPaths,
    folder: ModelFolder,
    fold: int,
    *,
    test: bool,
    seed: int,
    compare: ModelFolder | None = None,
) -> JudgedEvaluation:
    """Score the judgements of validation or test cases.

    Writes ``scores.json``, ``objects.csv`` and, where the system has simple models, ``shortcuts.json`` into
    ``val_results`` or ``test_results``, and ``comparison_<model>.json`` with another model to ``compare`` with (the
    same fold, the same cases).

    Raises:
        UserError: no results, no truth for any of them, or another model that cannot be compared.
    """
    system, plan = model_system(folder, fold)
    classes = list(plan.classes.values())
    results = _results(paths, folder, fold, system.result_type, test)
    rows, left_out = judged_rows(system, paths, results, "Ts" if test else "Tr")
    if not scored_rows(rows):
        raise UserError(
            "nothing can be scored: the true class of nothing that was judged is known",
            file=predictions_folder(folder, fold, test),
            found="; ".join(left_out.told()) or "no object in any case",
            remedy="Give the true class of some cases in the raw task",
        )
    comparison = None
    if compare is not None:
        comparison = compare_judgements(
            rows,
            _other_rows(paths, folder, compare, fold, test, results),
            classes,
            names=(folder.root.name, compare.root.name),
            draws=BOOTSTRAP_DRAWS,
            seed=seed,
        )
    scores = score_judgements(
        rows,
        classes,
        unit="case" if issubclass(system.result_type, Call) else "object",
        left_out=left_out,
        draws=BOOTSTRAP_DRAWS,
        seed=seed,
    )
    simple, controls = system.simpler_rows(paths, folder, fold, results, rows, test)
    shortcuts = None
    if simple or controls:
        shortcuts = shortcut_table(rows, simple, classes, controls, draws=BOOTSTRAP_DRAWS, seed=seed)
    evaluation = JudgedEvaluation(results_folder(folder, fold, test), rows, scores, comparison, shortcuts)
    _write(evaluation)
    return evaluation


def _results(
    paths: TaskPaths, folder: ModelFolder, fold: int, kind: type[Result], test: bool
) -> list[Result]:
    """Objects need the label of their case; the class of a whole case does not stand in a label."""
    description, split = read_description(paths.root), "Ts" if test else "Tr"
    cases: dict[str, RawCase]
    if issubclass(kind, Call):
        cases = {case.case_id: case for case in list_cases(paths, description, split)}
    else:
        cases = labelled_cases(paths, description, split)
    return read_results(kind, predictions_folder(folder, fold, test), cases, test)


def _other_rows(
    paths: TaskPaths,
    folder: ModelFolder,
    other: ModelFolder,
    fold: int,
    test: bool,
    results: Sequence[Result],
) -> list[JudgedRow]:
    """Rows of the other model; it must judge the same: type, classes, cases."""
    (system, plan), (own, own_plan) = model_system(other, fold), model_system(folder, fold)
    same_unit = issubclass(system.result_type, Call) == issubclass(own.result_type, Call)
    judges = issubclass(system.result_type, Judged | Call)
    if not judges or not same_unit or plan.classes != own_plan.classes:
        raise UserError(
            "the two models do not judge the same",
            file=other.root,
            expected=f"{own.result_type.__name__} of the classes {', '.join(own_plan.classes.values())}",
            found=f"{system.result_type.__name__} of {', '.join(plan.classes.values())}",
        )
    theirs = _results(paths, other, fold, system.result_type, test)
    differing = {each.case_id for each in results} ^ {each.case_id for each in theirs}
    if differing:
        raise UserError(
            f"the two models were not run on the same cases: {sorted(differing)[0]} has results of one only",
            file=predictions_folder(other, fold, test),
            remedy="Compare models that were run on the same cases",
        )
    return judged_rows(system, paths, theirs, "Ts" if test else "Tr")[0]


def _write(evaluation: JudgedEvaluation) -> None:
    folder = evaluation.folder
    write_json(folder / "scores.json", to_plain(evaluation.scores))
    write_objects(folder / OBJECTS, evaluation.rows, evaluation.scores.classes)
    if evaluation.shortcuts is not None:
        write_json(folder / SHORTCUTS, to_plain(evaluation.shortcuts))
    if evaluation.comparison is not None:
        write_json(
            folder / f"comparison_{evaluation.comparison.second}.json", to_plain(evaluation.comparison)
        )
