"""What the reports of all models share: which one is meant, and what its training has left behind."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import CONSOLIDATED, INFERENCE_PLAN, ModelFolder
from nndet_psma.artifacts.plan import Plan
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.planners.describe import describe_plan
from nndet_psma.report.files import read_cost, read_environment, read_memory, trained_precision
from nndet_psma.report.notes import Commands, Notes
from nndet_psma.report.sections.gallery import EXTREMES
from nndet_psma.stages.scored_cases import results_folder
from nndet_psma.systems.system import AnySystem, MetricRows, model_system

CONFIG = "config.yaml"
REPORT = "report.html"


@dataclass(frozen=True)
class ReportJob:
    """What to report.

    Attributes:
        folder: the model.
        fold: which fold, -1 for the consolidated model.
        test: test or validation predictions; None takes test where it is scored.
        output: file to write; None for :func:`report_file`.
        max_cases: cases shown in pictures.
        worst: missed lesions shown, and as many false alarms.
    """

    folder: ModelFolder
    fold: int = CONSOLIDATED
    test: bool | None = None
    output: Path | None = None
    max_cases: int = 12
    worst: int = EXTREMES


@dataclass(frozen=True)
class ScoredModel:
    """The model of a report.

    Attributes:
        results: folder of the scores.
        test: whether they are of test cases.
        notes: collects what is missing.
        inference: tuned settings; None, with a note, where they cannot be read.
        fields: of :class:`nndet_psma.report.model_source.ModelSource`, without scores and ``missing``.
    """

    results: Path
    test: bool
    notes: Notes
    inference: InferencePlan | None
    fields: dict[str, Any]


def report_file(job: ReportJob) -> Path:
    """Where the page goes: ``report.html`` in the model folder for what is asked for first, else a name that says what.

    So that the page of a fold, or of validation cases, does not replace that of the consolidated model.

    Raises:
        UserError: the model is not scored.
    """
    if job.output is not None:
        return job.output
    _, test = results_of(job)
    if job.fold == CONSOLIDATED:
        return job.folder.root / (REPORT if test or job.test is None else "report_val.html")
    return job.folder.root / f"report_fold{job.fold}_{'test' if test else 'val'}.html"


def other_pages(job: ReportJob) -> list[str]:
    """Names of the model's other reports beside the one that is written, for its links."""
    own = report_file(job)
    if own.parent != job.folder.root:
        return []
    return sorted(file.name for file in own.parent.glob("report*.html") if file != own)


def read_model(paths: TaskPaths | None, job: ReportJob) -> ScoredModel:
    """Plan, settings, fingerprint, curves, environments and cost of a model that is scored.

    Raises:
        UserError: it is not scored.
    """
    results, test = results_of(job)
    notes = Notes(Commands(job.folder, job.fold, test))
    system, plan = model_system(job.folder, job.fold)
    inference = notes.optional("inference", job.folder.fold(job.fold) / INFERENCE_PLAN, InferencePlan.read)
    folders = [job.folder.fold(fold) for fold in _folds(job)]
    precision = _precision(job)
    fields = {
        "task": job.folder.root.parent.name,
        "model": job.folder.root.name,
        "fold": job.fold,
        "split": "test" if test else "validation",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "plan": plan,
        "facts": system.facts(plan, precision),
        "decisions": describe_plan(plan),
        "inference": inference,
        "fingerprint": _fingerprint(paths, notes),
        "metrics": _curves(job, system, plan, notes),
        "environments": _environments(job, notes),
        "cost": read_cost(folders),
        "memory": read_memory(folders),
        "precision": precision,
        "own_sections": system.sections(plan),
        "others": other_pages(job),
    }
    return ScoredModel(results, test, notes, inference, fields)


def results_of(job: ReportJob) -> tuple[Path, bool]:
    """Folder of the results and whether they are of test cases."""
    wanted = (True, False) if job.test is None else (job.test,)
    for test in wanted:
        folder = results_folder(job.folder, job.fold, test)
        if (folder / "scores.json").is_file():
            return folder, test
    raise UserError(
        "the model is not evaluated" if job.test is None else "these predictions are not evaluated",
        file=job.folder.fold(job.fold),
        expected=" or ".join("test_results/scores.json" if t else "val_results/scores.json" for t in wanted),
        remedy=f"Run {Commands(job.folder, job.fold, wanted[0]).evaluate}",
    )


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
    if absent or not _folds(job):
        notes.note("metrics", "; ".join(absent) or "no fold folder is left")
    return found


def _environments(job: ReportJob, notes: Notes) -> dict[int, dict[str, Any]]:
    read = {fold: read_environment(job.folder.fold(fold)) for fold in _folds(job)}
    found = {fold: content for fold, content in read.items() if content is not None}
    if not found:
        notes.note("environment", "environment.json is missing")
    return found


def _precision(job: ReportJob) -> str:
    """Mixed precision of the folds' training, "no" where it is not known."""
    for fold in _folds(job):
        file = job.folder.fold(fold) / CONFIG
        if file.is_file():
            return trained_precision(file)
    return "no"
