"""Stage report: read everything a model has left behind and write one HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import (
    CONSOLIDATED,
    INFERENCE_PLAN,
    RAW,
    TEST_PREDICTIONS,
    VAL_PREDICTIONS,
    VALIDATION_RAW,
    ModelFolder,
)
from nndet_psma.artifacts.plan import Plan
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.artifacts.raw_predictions import RawPrediction, read_raw
from nndet_psma.core.atomic import write_text
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.task.cases import list_cases
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.evaluation.detection.compare import Comparison
from nndet_psma.evaluation.detection.scores import Scores
from nndet_psma.planners.describe import describe_plan
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.report.build import build_report
from nndet_psma.report.case_images import load_images, load_labels
from nndet_psma.report.files import (
    read_ablation,
    read_comparisons,
    read_cost,
    read_environment,
    read_memory,
    read_records,
    read_scores,
    read_sweep,
    trained_precision,
)
from nndet_psma.report.notes import Commands, Notes
from nndet_psma.report.page.content import Missing
from nndet_psma.report.removed import PlacedBox, removed_boxes
from nndet_psma.report.sections.gallery import EXTREMES
from nndet_psma.report.source import Raw, ReportSource
from nndet_psma.systems.system import AnySystem, MetricRows, model_system

REPORT = "report.html"
CONFIG = "config.yaml"


@dataclass(frozen=True)
class ReportJob:
    """What to report.

    Attributes:
        folder: the model.
        fold: which fold, -1 for the consolidated model.
        test: test or validation predictions; None takes test where it is scored.
        output: file to write; None for ``report.html`` in the model folder.
        max_cases: cases shown in pictures.
        worst: missed lesions shown, and as many false alarms.
    """

    folder: ModelFolder
    fold: int = CONSOLIDATED
    test: bool | None = None
    output: Path | None = None
    max_cases: int = 12
    worst: int = EXTREMES


def write_report(paths: TaskPaths | None, job: ReportJob) -> Path:
    """Write the page and return its file.

    Args:
        paths: the task's data; None when it is not on this machine (the page then says what it lacks).
        job: what to report.

    Raises:
        UserError: the model is not scored.
    """
    html = build_report(read_source(paths, job), job.max_cases, job.worst)
    target = job.output or job.folder.root / REPORT
    write_text(target, html)
    return target


def read_source(paths: TaskPaths | None, job: ReportJob) -> ReportSource:
    """Everything the report is made from; what is missing is noted with the command that makes it."""
    results, test = _results(job)
    commands = Commands(job.folder, job.fold, test)
    notes = Notes(commands)
    model = job.folder.fold(job.fold)
    system, plan = model_system(job.folder, job.fold)
    scores = read_scores(results / "scores.json", commands.evaluate)
    _note_old_scores(scores, notes)
    folders = [job.folder.fold(fold) for fold in _folds(job)]
    inference = notes.optional("inference", model / INFERENCE_PLAN, InferencePlan.read)
    precision = _precision(job)
    predictions = _predictions(model / (TEST_PREDICTIONS if test else VAL_PREDICTIONS))
    return ReportSource(
        task=job.folder.root.parent.name,
        model=job.folder.root.name,
        fold=job.fold,
        split="test" if test else "validation",
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        plan=plan,
        facts=system.facts(plan, precision),
        decisions=describe_plan(plan),
        inference=inference,
        scores=scores,
        records=notes.optional("records", results / "records.json", read_records) or (),
        ablation=notes.optional("ablation", results / "ablation.json", read_ablation) or (),
        sweep=notes.optional("sweep", model / "sweep.json", read_sweep),
        fingerprint=_fingerprint(paths, notes),
        metrics=_curves(job, system, plan, notes),
        environments=_environments(job, notes),
        predictions=predictions,
        raw=_raw(paths, job, test, inference, list(predictions), notes),
        comparisons=_comparisons(results, notes),
        cost=read_cost(folders),
        memory=read_memory(folders),
        precision=precision,
        stale=_is_stale(job, test, inference, predictions),
        missing=notes.missing,
    )


def _results(job: ReportJob) -> tuple[Path, bool]:
    """Folder of the results and whether they are of test cases."""
    model = job.folder.fold(job.fold)
    wanted = (True, False) if job.test is None else (job.test,)
    for test in wanted:
        folder = model / ("test_results" if test else "val_results")
        if (folder / "scores.json").is_file():
            return folder, test
    raise UserError(
        "the model is not evaluated" if job.test is None else "these predictions are not evaluated",
        file=model,
        expected=" or ".join("test_results/scores.json" if t else "val_results/scores.json" for t in wanted),
        remedy=f"Run {Commands(job.folder, job.fold, wanted[0]).evaluate}",
    )


def _predictions(folder: Path) -> dict[str, Prediction]:
    read = (Prediction.read(file) for file in sorted(folder.glob("*_boxes.json")))
    return {prediction.case_id: prediction for prediction in read}


def _fingerprint(paths: TaskPaths | None, notes: Notes) -> Fingerprint | None:
    if paths is None:
        notes.note("fingerprint", "the task's data are not on this machine")
        return None
    return notes.optional("fingerprint", paths.fingerprint, Fingerprint.read)


def _folds(job: ReportJob) -> list[int]:
    return job.folder.trained_folds() if job.fold == CONSOLIDATED else [job.fold]


def _curves(job: ReportJob, system: AnySystem, plan: Plan, notes: Notes) -> dict[int, dict[str, MetricRows]]:
    found: dict[int, dict[str, MetricRows]] = {}
    absent: list[str] = []
    for fold in _folds(job):
        curves, without = system.curves(job.folder, fold, plan)
        if curves:
            found[fold] = curves
        absent += without
    if absent or not found:
        notes.note("metrics", "; ".join(absent) or "no fold folder is left")
    return found


def _environments(job: ReportJob, notes: Notes) -> dict[int, dict[str, Any]]:
    read = {fold: read_environment(job.folder.fold(fold)) for fold in _folds(job)}
    found = {fold: content for fold, content in read.items() if content is not None}
    if not found:
        notes.note("environment", "environment.json is missing")
    return found


def _comparisons(results: Path, notes: Notes) -> list[Comparison]:
    found, problem = read_comparisons(results)
    if problem or not found:
        notes.note("comparison", problem or "none was made")
    return found


def _precision(job: ReportJob) -> str:
    """Mixed precision of the folds' training, "no" where it is not known."""
    for fold in _folds(job):
        file = job.folder.fold(fold) / CONFIG
        if file.is_file():
            return trained_precision(file)
    return "no"


def _note_old_scores(scores: Scores, notes: Notes) -> None:
    if scores.num_lesions and not scores.strata and not scores.other_hits:
        notes.note("strata", "scores.json is of an older version")


def _raw(
    paths: TaskPaths | None,
    job: ReportJob,
    test: bool,
    inference: InferencePlan | None,
    case_ids: list[str],
    notes: Notes,
) -> Raw | None:
    """Ways to the raw data, or None with a note when a predicted case or its label is not there."""
    nowhere = "pictures: the raw images and labels of the task are not on this machine. "
    nowhere += "Set det_data to the folder that holds the task and write the report again."
    try:
        if paths is None:
            raise UserError(nowhere)
        description = read_description(paths.root)
        cases = {case.case_id: case for case in list_cases(paths, description, "Ts" if test else "Tr")}
    except UserError as error:
        notes.missing["raw"] = Missing(nowhere if paths is None else f"pictures: {error}")
        return None
    absent = [case_id for case_id in case_ids if case_id not in cases or cases[case_id].label is None]
    if absent:
        notes.missing["raw"] = Missing(
            f"pictures: {absent[0]} has no image or no label in the task's raw data."
        )
        return None

    def removed(case_id: str) -> list[PlacedBox]:
        parts = _raw_parts(job, test, inference, case_id)
        if inference is None or not parts:
            return []
        grid = load_labels(cases[case_id], description).grid
        return removed_boxes(parts, PostprocSettings(**inference.settings), grid)

    return Raw(
        lambda case_id: load_labels(cases[case_id], description),
        lambda case_id: load_images(cases[case_id], description),
        removed,
    )


def _is_stale(
    job: ReportJob, test: bool, inference: InferencePlan | None, predictions: dict[str, Prediction]
) -> bool:
    """Whether a prediction was made with other thresholds or raw boxes; the first that has raw boxes tells."""
    for case_id, prediction in predictions.items() if inference is not None else ():
        parts = _raw_parts(job, test, inference, case_id)
        if inference is not None and parts:
            settings = to_plain(PostprocSettings(**inference.settings))
            return prediction.made_from not in [hash_json([raw.meta.made_from, settings]) for raw in parts]
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
