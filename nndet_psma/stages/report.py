"""Stage report: read everything a model has left behind and write one HTML page."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.core.atomic import read_json, write_text
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import SchemaError, from_plain
from nndet_psma.dataset.cases import list_cases
from nndet_psma.dataset.description import read_description
from nndet_psma.dataset.paths import TaskPaths
from nndet_psma.evaluation.record import CaseRecord
from nndet_psma.evaluation.scores import Scores
from nndet_psma.inference.ablation import AblationRow
from nndet_psma.inference.model_folder import CONSOLIDATED, ModelFolder
from nndet_psma.inference.raw_predictions import RawPrediction, read_raw
from nndet_psma.inference.tuning import RAW_FOLDER as VAL_RAW
from nndet_psma.planners.describe import describe_plan
from nndet_psma.postproc.settings import PostprocSettings
from nndet_psma.report.build import build_report
from nndet_psma.report.case_images import load_images, load_labels
from nndet_psma.report.content import Missing
from nndet_psma.report.removed import PlacedBox, removed_boxes
from nndet_psma.report.source import MetricRows, Raw, ReportSource
from nndet_psma.stages.evaluate import TEST_PREDICTIONS
from nndet_psma.stages.predict import RAW_FOLDER as TEST_RAW
from nndet_psma.stages.sweep import INFERENCE_PLAN, VAL_PREDICTIONS

REPORT = "report.html"

T = TypeVar("T")


@dataclass(frozen=True)
class ReportJob:
    """What to report.

    Attributes:
        folder: the model.
        fold: which fold, -1 for the consolidated model.
        test: test or validation predictions; None takes test where it is scored.
        output: file to write; None for ``report.html`` in the model folder.
        max_cases: cases shown in pictures.
    """

    folder: ModelFolder
    fold: int = CONSOLIDATED
    test: bool | None = None
    output: Path | None = None
    max_cases: int = 12


def write_report(paths: TaskPaths | None, job: ReportJob) -> Path:
    """Write the page and return its file.

    Args:
        paths: the task's data; None when it is not on this machine (the page then says what it lacks).
        job: what to report.

    Raises:
        UserError: the model is not scored.
    """
    html = build_report(read_source(paths, job), job.max_cases)
    target = job.output or job.folder.root / REPORT
    write_text(target, html)
    return target


def read_source(paths: TaskPaths | None, job: ReportJob) -> ReportSource:
    """Everything the report is made from; what is missing is noted with the command that makes it."""
    results, test = _results(job)
    commands = _Commands(job, test)
    notes = _Notes(commands)
    model = job.folder.fold(job.fold)
    plan = job.folder.plan(job.fold)
    inference = notes.optional("inference", model / INFERENCE_PLAN, InferencePlan.read)
    predictions = _predictions(model / (TEST_PREDICTIONS if test else VAL_PREDICTIONS))
    return ReportSource(
        task=job.folder.root.parent.name,
        model=job.folder.root.name,
        fold=job.fold,
        split="test" if test else "validation",
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        plan=plan,
        decisions=describe_plan(plan),
        inference=inference,
        scores=_read_scores(results / "scores.json", commands.evaluate),
        records=notes.optional("records", results / "records.json", _read_records) or (),
        ablation=notes.optional("ablation", results / "ablation.json", _read_ablation) or (),
        sweep=notes.optional("sweep", model / "sweep.json", _read_sweep),
        fingerprint=_fingerprint(paths, notes),
        metrics=_metrics(job, [stage.name for stage in plan.stages], notes),
        environments=_environments(job, notes),
        predictions=predictions,
        raw=_raw(paths, job, test, inference, list(predictions), notes),
        missing=notes.missing,
    )


class _Commands:
    """The commands that make what is missing."""

    def __init__(self, job: ReportJob, test: bool) -> None:
        task, model = job.folder.root.parent.name, job.folder.root.name
        one_fold = f"nndet_sweep {task} {model} {job.fold}"
        tune = f"nndet_consolidate {task} {model} --sweep_boxes" if job.fold == CONSOLIDATED else one_fold
        self.evaluate = f"nndet_eval {task} {model} {job.fold}" + (" --test" if test else "")
        self.of = {
            "inference": ("the thresholds", tune),
            "sweep": ("the landscape of the thresholds", tune),
            "records": ("curve and cases, because records.json", self.evaluate),
            "ablation": ("the ablation", self.evaluate),
            "fingerprint": ("the measured properties of the training data", f"nndet_prep {task}"),
            "metrics": ("training curves", f"nndet_train {task}"),
            "environment": ("versions of the training", f"nndet_train {task}"),
        }


class _Notes:
    """Collects what is missing."""

    def __init__(self, commands: _Commands) -> None:
        self.commands = commands
        self.missing: dict[str, Missing] = {}

    def optional(self, key: str, file: Path, read: Callable[[Path], T]) -> T | None:
        """The content of ``file``; a missing or damaged one is noted under ``key``."""
        if not file.is_file():
            self.note(key, f"{file.name} is missing")
            return None
        try:
            return read(file)
        except (UserError, SchemaError, KeyError, TypeError) as error:
            self.note(key, f"{file.name} cannot be read ({error})")
            return None

    def note(self, key: str, reason: str) -> None:
        """Note ``key`` as missing for ``reason``."""
        what, command = self.commands.of[key]
        self.missing[key] = Missing(f"{what}: {reason}.", command)


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
        remedy=f"Run {_Commands(job, wanted[0]).evaluate}",
    )


def _read_scores(file: Path, command: str) -> Scores:
    try:
        return from_plain(Scores, read_json(file))
    except SchemaError as error:
        raise UserError(f"invalid scores: {error}", file=file, remedy=f"Run {command} again") from None


def _read_records(file: Path) -> list[CaseRecord]:
    return [from_plain(CaseRecord, each) for each in read_json(file)]


def _read_ablation(file: Path) -> list[AblationRow]:
    return [from_plain(AblationRow, each) for each in read_json(file)]


def _read_sweep(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_json(file)
    keys = ("columns", "rows", "best", "criterion", "num_settings", "num_cases", "num_lesions", "tie_rule")
    return {key: content[key] for key in keys}


def _predictions(folder: Path) -> dict[str, Prediction]:
    read = (Prediction.read(file) for file in sorted(folder.glob("*_boxes.json")))
    return {prediction.case_id: prediction for prediction in read}


def _fingerprint(paths: TaskPaths | None, notes: _Notes) -> Fingerprint | None:
    if paths is None:
        notes.note("fingerprint", "the task's data are not on this machine")
        return None
    return notes.optional("fingerprint", paths.fingerprint, Fingerprint.read)


def _folds(job: ReportJob) -> list[int]:
    return job.folder.trained_folds() if job.fold == CONSOLIDATED else [job.fold]


def _metrics(job: ReportJob, stages: list[str], notes: _Notes) -> dict[int, dict[str, MetricRows]]:
    metrics: dict[int, dict[str, MetricRows]] = {}
    absent = []
    for fold in _folds(job):
        for stage in stages:
            file = job.folder.fold(fold) / stage / "metrics.csv"
            rows = _read_metrics(file) if file.is_file() else []
            if rows:
                metrics.setdefault(fold, {})[stage] = rows
            else:
                absent.append(f"{stage} of fold {fold}")
    if absent or not metrics:
        notes.note("metrics", f"metrics.csv is missing ({', '.join(absent) or 'no fold folder is left'})")
    return metrics


def _read_metrics(file: Path) -> list[dict[str, float]]:
    """Rows whose step and loss are numbers; a resumed run may leave other cells empty."""
    rows = []
    with file.open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            values = {name: float(cell) for name, cell in row.items() if name and _is_number(cell)}
            if {"step", "loss"} <= set(values):
                rows.append(values)
    return rows


def _is_number(cell: Any) -> bool:
    try:
        return float("-inf") < float(cell) < float("inf")
    except (TypeError, ValueError):
        return False


def _environments(job: ReportJob, notes: _Notes) -> dict[int, dict[str, Any]]:
    files = {fold: job.folder.fold(fold) / "environment.json" for fold in _folds(job)}
    found = {fold: read_json(file) for fold, file in files.items() if file.is_file()}
    if not found:
        notes.note("environment", "environment.json is missing")
    return {fold: content for fold, content in found.items() if isinstance(content, dict)}


def _raw(
    paths: TaskPaths | None,
    job: ReportJob,
    test: bool,
    inference: InferencePlan | None,
    case_ids: list[str],
    notes: _Notes,
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


def _raw_parts(
    job: ReportJob, test: bool, inference: InferencePlan | None, case_id: str
) -> list[RawPrediction]:
    if test:
        places = [job.folder.fold(job.fold) / TEST_PREDICTIONS / TEST_RAW]
    else:
        places = [job.folder.fold(fold) / VAL_RAW for fold in (inference.folds if inference else [])]
    files = [place / f"{case_id}.npz" for place in places]
    return [read_raw(file) for file in files if file.is_file()]
