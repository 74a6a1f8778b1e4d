"""The report of a model that judges objects or cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.core.atomic import read_json
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import SchemaError, from_plain
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.evaluation.judgements.compare import JudgementComparison
from nndet_psma.evaluation.judgements.row import JudgedRow
from nndet_psma.evaluation.judgements.shortcuts import ShortcutTable
from nndet_psma.evaluation.judgements.table import read_objects
from nndet_psma.inference.explanations import explanation_folder
from nndet_psma.report.files import read_comparisons, read_judgement_scores
from nndet_psma.report.judged_page import build_judged_page
from nndet_psma.report.judged_source import JudgedSource
from nndet_psma.report.page.content import Picture
from nndet_psma.report.page.figures import picture_of
from nndet_psma.report.sections.judged import worst_first
from nndet_psma.stages.evaluate_judged import OBJECTS, SHORTCUTS
from nndet_psma.stages.predict import INDEX
from nndet_psma.stages.report_model import ReportJob, read_model
from nndet_psma.stages.scored_cases import predictions_folder


def judged_page(paths: TaskPaths | None, job: ReportJob) -> str:
    """The page as HTML."""
    return build_judged_page(read_judged_source(paths, job))


def read_judged_source(paths: TaskPaths | None, job: ReportJob) -> JudgedSource:
    """Everything the report of judgements is made from; what is missing is noted with the command that makes it.

    Raises:
        UserError: the model is not scored, or its scores cannot be read.
    """
    scored = read_model(paths, job)
    notes = scored.notes
    comparisons, problem = read_comparisons(scored.results, JudgementComparison)
    if problem or not comparisons:
        notes.note("comparison", problem or "none was made")
    predictions = predictions_folder(job.folder, job.fold, scored.test)
    rows = notes.optional("objects", scored.results / OBJECTS, read_objects) or ()
    return JudgedSource(
        **scored.fields,
        scores=read_judgement_scores(scored.results / "scores.json", notes.commands.evaluate),
        rows=rows,
        explained=_explained(predictions, rows, job.worst),
        comparisons=comparisons,
        shortcuts=_shortcuts(scored.results / SHORTCUTS),
        stale=scored.test and _is_stale(predictions / INDEX, scored.inference),
        missing=notes.missing,
    )


def _explained(predictions: Path, rows: Sequence[JudgedRow], most: int) -> dict[tuple[str, int], Picture]:
    """Pictures of the most certain mistakes, where ``nndet_predict --explain`` has left them."""
    found: dict[tuple[str, int], Picture] = {}
    for row in worst_first(rows):
        if row.truth is None or row.right or row.object_id is None or len(found) == most:
            continue
        file = explanation_folder(predictions, row.case_id) / f"{row.object_id}.png"
        if file.is_file():
            alt = f"{row.case_id}, object {row.object_id}: CT, occlusion, Grad-CAM"
            found[row.case_id, row.object_id] = picture_of(file, alt)
    return found


def _shortcuts(file: Path) -> ShortcutTable | None:
    """None where the system has no simple models, or the file is of another release."""
    try:
        found: ShortcutTable | None = from_plain(ShortcutTable, read_json(file)) if file.is_file() else None
    except (UserError, SchemaError):
        return None
    return found


def _is_stale(index: Path, inference: InferencePlan | None) -> bool:
    """Whether the decisions of test cases were taken with other settings than those that are tuned now."""
    if inference is None or not index.is_file():
        return False
    content = read_json(index)
    return isinstance(content, dict) and content.get("thresholds") != inference.settings
