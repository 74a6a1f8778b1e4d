"""Stage report: read everything a model has left behind and write one HTML page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import (
    RAW,
    TEST_PREDICTIONS,
    VALIDATION_RAW,
)
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.artifacts.raw_predictions import RawPrediction, read_raw
from nndet_psma.artifacts.results import Call, Judged, Result, for_type
from nndet_psma.core.atomic import write_text
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.task.cases import list_cases
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.evaluation.detection.compare import Comparison
from nndet_psma.evaluation.detection.scores import Scores
from nndet_psma.inference.postprocessing import read_settings
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.report.build import build_report
from nndet_psma.report.case_images import load_images, load_labels
from nndet_psma.report.files import (
    read_ablation,
    read_comparisons,
    read_records,
    read_scores,
    read_sweep,
)
from nndet_psma.report.notes import Notes
from nndet_psma.report.page.content import Missing
from nndet_psma.report.removed import PlacedBox, removed_boxes
from nndet_psma.report.source import Raw, ReportSource
from nndet_psma.stages.report_judged import judged_page
from nndet_psma.stages.report_model import ReportJob, read_model, report_file
from nndet_psma.stages.scored_cases import box_type, predictions_folder
from nndet_psma.systems.system import model_system

__all__ = ["ReportJob", "read_source", "write_report"]


def boxes_page(paths: TaskPaths | None, job: ReportJob) -> str:
    """The page of a model that finds lesions, as HTML."""
    return build_report(read_source(paths, job), job.max_cases, job.worst)


PAGES: dict[type[Result], Callable[[TaskPaths | None, ReportJob], str]] = {
    Prediction: boxes_page,
    Judged: judged_page,
    Call: judged_page,
}
"""By type of result; a derived type gets the page of the nearest one it is derived from."""


def write_report(paths: TaskPaths | None, job: ReportJob) -> Path:
    """Write the page and return its file.

    Args:
        paths: the task's data; None when it is not on this machine (the page then says what it lacks).
        job: what to report.

    Raises:
        UserError: the model is not scored.
    """
    system, _ = model_system(job.folder, job.fold)
    html = for_type(PAGES, system.result_type, "reported")(paths, job)
    target = report_file(job)
    write_text(target, html)
    return target


def read_source(paths: TaskPaths | None, job: ReportJob) -> ReportSource:
    """Everything the report of boxes is made from; what is missing is noted with the command that makes it."""
    scored = read_model(paths, job)
    results, test, notes, inference = scored.results, scored.test, scored.notes, scored.inference
    model = job.folder.fold(job.fold)
    scores = read_scores(results / "scores.json", notes.commands.evaluate)
    _note_old_scores(scores, notes)
    predictions = _predictions(predictions_folder(job.folder, job.fold, test), box_type(job.folder, job.fold))
    settings = None if inference is None else _settings(inference, notes)
    return ReportSource(
        **{**scored.fields, "inference": None if settings is None else inference},
        scores=scores,
        records=notes.optional("records", results / "records.json", read_records) or (),
        ablation=notes.optional("ablation", results / "ablation.json", read_ablation) or (),
        sweep=notes.optional("sweep", model / "sweep.json", read_sweep),
        predictions=predictions,
        raw=_raw(paths, job, test, inference, settings, list(predictions), notes),
        comparisons=_comparisons(results, notes),
        stale=_is_stale(job, test, inference, settings, predictions),
        missing=notes.missing,
    )


def _predictions(folder: Path, kind: type[Prediction]) -> dict[str, Prediction]:
    read = (kind.read(file) for file in sorted(folder.glob(f"*{kind.suffix}")))
    return {prediction.case_id: prediction for prediction in read}


def _comparisons(results: Path, notes: Notes) -> list[Comparison]:
    found, problem = read_comparisons(results, Comparison)
    if problem or not found:
        notes.note("comparison", problem or "none was made")
    return found


def _note_old_scores(scores: Scores, notes: Notes) -> None:
    if scores.num_lesions and not scores.strata and not scores.other_hits:
        notes.note("strata", "scores.json is of an older version")


def _settings(inference: InferencePlan, notes: Notes) -> PostprocSettings | None:
    """The tuned thresholds, checked; None, with a note, where they make no sense: the page does not fail for them."""
    try:
        return read_settings(inference)
    except UserError as error:
        notes.note("inference", str(error))
        return None


def _raw(
    paths: TaskPaths | None,
    job: ReportJob,
    test: bool,
    inference: InferencePlan | None,
    settings: PostprocSettings | None,
    case_ids: list[str],
    notes: Notes,
) -> Raw | None:
    """Ways to the raw data, or None with a note when a predicted case or its label is not there."""
    if paths is None:
        notes.missing["raw"] = Missing(
            "pictures: the raw images and labels of the task are not on this machine. "
            "Set det_data to the folder that holds the task and write the report again."
        )
        return None
    try:
        description = read_description(paths.root)
        cases = {case.case_id: case for case in list_cases(paths, description, "Ts" if test else "Tr")}
    except UserError as error:
        notes.missing["raw"] = Missing(f"pictures: {error}")
        return None
    absent = [case_id for case_id in case_ids if case_id not in cases or cases[case_id].label is None]
    if absent:
        notes.missing["raw"] = Missing(
            f"pictures: {absent[0]} has no image or no label in the task's raw data."
        )
        return None

    def removed(case_id: str) -> list[PlacedBox]:
        parts = _raw_parts(job, test, inference, case_id)
        if settings is None or not parts:
            return []
        grid = load_labels(cases[case_id], description).grid
        return removed_boxes(parts, settings, grid)

    return Raw(
        lambda case_id: load_labels(cases[case_id], description),
        lambda case_id: load_images(cases[case_id], description),
        removed,
    )


def _is_stale(
    job: ReportJob,
    test: bool,
    inference: InferencePlan | None,
    settings: PostprocSettings | None,
    predictions: dict[str, Prediction],
) -> bool:
    """Whether a prediction was made with other thresholds or raw boxes; the first that has raw boxes tells."""
    for case_id, prediction in predictions.items() if settings is not None else ():
        parts = _raw_parts(job, test, inference, case_id)
        if parts:
            plain = to_plain(settings)
            return prediction.made_from not in [hash_json([raw.meta.made_from, plain]) for raw in parts]
    return False


def _raw_parts(
    job: ReportJob, test: bool, inference: InferencePlan | None, case_id: str
) -> list[RawPrediction]:
    if test:
        places = [job.folder.fold(job.fold) / TEST_PREDICTIONS / RAW]
    else:
        places = [job.folder.fold(fold) / VALIDATION_RAW for fold in (inference.folds if inference else [])]
    files = [place / f"{case_id}.npz" for place in places]
    return [read_raw(file) for file in files if file.is_file()]
