"""The jobs of a whole training as a dependency graph: folds x stages, then sweeps, then consolidation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nndet_psma.artifacts.model_folder import INFERENCE_PLAN
from nndet_psma.core.errors import UserError

CONSOLIDATE = "consolidate"
_RESERVED = {
    "exp.fold": "choose folds with --folds",
    "exp.voter": "every stage is a job of its own; train one with nndet_train",
}


@dataclass(frozen=True)
class Step:
    """A training inside a fold that can be a job of its own.

    Attributes:
        name: as ``exp.voter`` names it; "" where the fold is one training.
        needs: names of the steps it starts from.
        iterations: that it takes; 0 where that is not known.
        result: what it leaves behind, relative to the model folder.
        progress: folder with its ``metrics.csv`` and checkpoints, relative to the model folder; None without one.
    """

    name: str
    needs: tuple[str, ...]
    iterations: int
    result: str
    progress: str | None = None


@dataclass(frozen=True)
class Job:
    """One command in a process of its own.

    Attributes:
        name: unique: ``fold0/wsi``, ``sweep0``, ``consolidate``.
        kind: what it does.
        fold: index into ``plan.folds``; None for the consolidation.
        stage: name of the stage it trains; None for the others, and where a fold is one training.
        needs: names of the jobs that must be done before it starts; they stand earlier in the list of jobs.
        command: the equivalent command line, program first.
        result: what it leaves behind, relative to the model folder.
        progress: where its progress can be read, relative to the model folder; None where it cannot.
        iterations: steps of its training; 0 where that is not known.
    """

    name: str
    kind: Literal["train", "sweep", "consolidate"]
    fold: int | None
    stage: str | None
    needs: list[str]
    command: list[str]
    result: str = ""
    progress: str | None = None
    iterations: int = 0


def build_jobs(
    steps: Mapping[int, Sequence[Step]],
    num_folds: int,
    task: str,
    model: str,
    overrides: Sequence[str] = (),
    *,
    sweep: bool = False,
    consolidate: bool = False,
) -> list[Job]:
    """Jobs of the folds in an order in which they can run one after another.

    A stage waits for the stage it starts from, so that no two jobs ever train the same stage; the sweep of a fold waits
    for all its stages; the consolidation waits for all folds.

    Args:
        steps: trainings of every fold to train.
        num_folds: of the plan.
        task: folder name of the task.
        model: folder name of the model.
        overrides: ``-o`` of every command.
        sweep: add one sweep per fold.
        consolidate: add the consolidation (which tunes on the validation cases of all folds).

    Raises:
        UserError: a fold that does not exist, or an override that the jobs set themselves.
    """
    check_overrides(overrides)
    chosen = sorted(steps)
    wrong = [fold for fold in chosen if not 0 <= fold < num_folds]
    if wrong or not chosen:
        found = f"fold {wrong[0]}" if wrong else "no fold"
        raise UserError("a fold to train does not exist", expected=f"0 to {num_folds - 1}", found=found)
    jobs: list[Job] = []
    for fold in chosen:
        jobs += _fold_jobs(steps[fold], fold, task, model, overrides, sweep)
    if consolidate:
        command = ["nndet_consolidate", task, model, "--folds", *map(str, chosen), "--sweep_boxes"]
        command = _with(command, overrides)
        result = f"consolidated/{INFERENCE_PLAN}"
        jobs.append(Job(CONSOLIDATE, "consolidate", None, None, last_jobs(jobs), command, result))
    return jobs


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse overrides that the jobs set themselves; UserError says what to use instead."""
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key in _RESERVED:
            raise UserError(f"{key} is set by the jobs", found=override, remedy=_RESERVED[key].capitalize())
        if key == "train.mode" and value == "overwrite":
            raise UserError(
                "train.mode=overwrite would train a stage again for every stage that starts from it",
                remedy="Delete the model folder, or train under another name with -o exp.tag=_NAME",
            )


def last_jobs(jobs: Sequence[Job]) -> list[str]:
    """Names of the jobs that no other one waits for."""
    needed = {name for job in jobs for name in job.needs}
    return [job.name for job in jobs if job.name not in needed]


def ready_jobs(jobs: Sequence[Job], states: Mapping[str, str]) -> list[Job]:
    """Waiting jobs whose needs are all done, in order."""
    return [
        job
        for job in jobs
        if states[job.name] == "waiting" and all(states[name] == "done" for name in job.needs)
    ]


def blocking_job(job: Job, jobs: Mapping[str, Job], states: Mapping[str, str]) -> str | None:
    """Name of the failed job that keeps ``job`` from ever starting, itself or through others; None if nothing does."""
    for name in job.needs:
        if states[name] == "failed":
            return name
        found = blocking_job(jobs[name], jobs, states)
        if found is not None:
            return found
    return None


def _fold_jobs(
    steps: Sequence[Step], fold: int, task: str, model: str, overrides: Sequence[str], sweep: bool
) -> list[Job]:
    jobs = []
    for step in steps:
        voter = [f"exp.voter={step.name}"] if step.name else []
        command = ["nndet_train", task, "-o", f"exp.fold={fold}", *voter, *overrides]
        needs = [_job_name(fold, name) for name in step.needs]
        jobs.append(
            Job(
                _job_name(fold, step.name), "train", fold, step.name or None, needs, command,
                step.result, step.progress, step.iterations,
            )
        )  # fmt: skip
    if sweep:
        command = _with(["nndet_sweep", task, model, str(fold)], overrides)
        result = f"fold{fold}/{INFERENCE_PLAN}"
        jobs.append(Job(f"sweep{fold}", "sweep", fold, None, last_jobs(jobs), command, result))
    return jobs


def _job_name(fold: int, step: str) -> str:
    return f"fold{fold}/{step}" if step else f"fold{fold}"


def _with(command: list[str], overrides: Sequence[str]) -> list[str]:
    return [*command, "-o", *overrides] if overrides else command
