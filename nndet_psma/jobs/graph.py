"""The jobs of a whole training as a dependency graph: folds x stages, then sweeps, then consolidation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nndet_psma.artifacts.plan import Plan
from nndet_psma.core.errors import UserError

CONSOLIDATE = "consolidate"
_RESERVED = {
    "exp.fold": "choose folds with --folds",
    "exp.voter": "every stage is a job of its own; train one with nndet_train",
}


@dataclass(frozen=True)
class Job:
    """One command in a process of its own.

    Attributes:
        name: unique: ``fold0/wsi``, ``sweep0``, ``consolidate``.
        kind: what it does.
        fold: index into ``plan.folds``; None for the consolidation.
        stage: name of the stage it trains; None for the others.
        needs: names of the jobs that must be done before it starts; they stand earlier in the list of jobs.
        command: the equivalent command line, program first.
    """

    name: str
    kind: Literal["train", "sweep", "consolidate"]
    fold: int | None
    stage: str | None
    needs: list[str]
    command: list[str]


def build_jobs(
    plan: Plan,
    folds: Sequence[int],
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
        plan: with overrides already applied.
        folds: to train; sorted, each once.
        task: folder name of the task.
        model: folder name of the model.
        overrides: ``-o`` of every command.
        sweep: add one sweep per fold.
        consolidate: add the consolidation (which tunes on the validation cases of all folds).

    Raises:
        UserError: a fold that does not exist, or an override that the jobs set themselves.
    """
    check_overrides(overrides)
    chosen = sorted(set(folds))
    wrong = [fold for fold in chosen if not 0 <= fold < len(plan.folds)]
    if wrong or not chosen:
        found = f"fold {wrong[0]}" if wrong else "no fold"
        raise UserError("a fold to train does not exist", expected=f"0 to {len(plan.folds) - 1}", found=found)
    jobs: list[Job] = []
    for fold in chosen:
        jobs += _fold_jobs(plan, fold, task, model, overrides, sweep)
    if consolidate:
        command = ["nndet_consolidate", task, model, "--folds", *map(str, chosen), "--sweep_boxes"]
        jobs.append(Job(CONSOLIDATE, "consolidate", None, None, last_jobs(jobs), _with(command, overrides)))
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
    plan: Plan, fold: int, task: str, model: str, overrides: Sequence[str], sweep: bool
) -> list[Job]:
    jobs = []
    for stage in plan.stages:
        needs = [] if stage.start_from is None else [f"fold{fold}/{stage.start_from}"]
        command = ["nndet_train", task, "-o", f"exp.fold={fold}", f"exp.voter={stage.name}", *overrides]
        jobs.append(Job(f"fold{fold}/{stage.name}", "train", fold, stage.name, needs, command))
    if sweep:
        command = _with(["nndet_sweep", task, model, str(fold)], overrides)
        jobs.append(Job(f"sweep{fold}", "sweep", fold, None, last_jobs(jobs), command))
    return jobs


def _with(command: list[str], overrides: Sequence[str]) -> list[str]:
    return [*command, "-o", *overrides] if overrides else command
