"""The status table: one row per job, read from files alone."""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass
from pathlib import Path

from nndet_psma.core.atomic import read_json
from nndet_psma.core.errors import UserError
from nndet_psma.jobs.graph import blocking_job
from nndet_psma.jobs.record import JobState, read_run

COLUMNS = ("job", "fold", "stage", "state", "attempts", "seconds", "note")


@dataclass(frozen=True)
class StageSteps:
    """Steps a stage has made, and those it is to make."""

    done: int
    iterations: int


def table_rows(states: list[JobState], model: Path) -> list[tuple[str, ...]]:
    """Cells under :data:`COLUMNS`."""
    jobs = {state.job.name: state.job for state in states}
    by_name = {state.job.name: state.state for state in states}
    rows: list[tuple[str, ...]] = []
    for state in states:
        job, note = state.job, state.why
        blocked = blocking_job(job, jobs, by_name) if state.state in ("waiting", "submitted") else None
        if blocked is not None:
            note = f"{blocked} failed"
        seconds = state.seconds + _running_seconds(state, model)
        rows.append((
            job.name,
            "" if job.fold is None else str(job.fold),
            job.stage or job.kind,
            f"{state.state}{_steps_text(state, model)}",
            str(state.attempts),
            f"{seconds:.0f}" if state.attempts else "",
            note,
        ))  # fmt: skip
    return rows


def counts_text(states: list[JobState]) -> str:
    """``3 done, 1 running, 2 waiting``."""
    names = [state.state for state in states]
    return ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(sorted(names)))


def stage_steps(folder: Path) -> int:
    """Steps that a stage in ``folder`` has surely made: of its checkpoint, or of the last row of metrics.csv."""
    steps = [0]
    for file in folder.glob("*/progress.json"):
        steps.append(_step_of_checkpoint(file))
    metrics = folder / "metrics.csv"
    if metrics.is_file():
        with metrics.open(newline="", encoding="utf-8") as handle:
            steps += [int(row["step"]) for row in csv.DictReader(handle) if (row.get("step") or "").isdigit()]
    return max(steps)


def _steps_text(state: JobState, model: Path) -> str:
    job = state.job
    if job.progress is None or state.state not in ("running", "stopped", "failed"):
        return ""
    steps = StageSteps(stage_steps(model / job.progress), job.iterations)
    return f" {steps.done}/{steps.iterations}" if steps.iterations else ""


def _running_seconds(state: JobState, model: Path) -> float:
    if state.state != "running" or state.folder is None:
        return 0.0
    run = read_run(model / state.folder)
    return 0.0 if run is None else max(0.0, time.time() - run.started)


def _step_of_checkpoint(file: Path) -> int:
    try:
        return int(read_json(file).get("step", 0))
    except (UserError, AttributeError, TypeError, ValueError):
        return 0  # being replaced this moment, or not ours
