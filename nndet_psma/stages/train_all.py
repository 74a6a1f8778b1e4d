"""Stage train-all: which jobs a whole training has, and which of them an earlier run has done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.plan import Plan
from nndet_psma.artifacts.plan_file import read_plan
from nndet_psma.artifacts.run_config import RunConfig
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.jobs.graph import Job, build_jobs
from nndet_psma.jobs.record import JobState
from nndet_psma.jobs.scheduler import has_result
from nndet_psma.jobs.status import current_states
from nndet_psma.systems.system import AnySystem, TrainJob, system_of


@dataclass(frozen=True)
class FanOut:
    """What is to be trained.

    Attributes:
        system: that is trained.
        plan: with overrides applied.
        config: of the command.
        model: model folder, ``det_models/TASK/MODULE_PLAN``.
        states: the jobs; finished ones of an earlier run are ``done``.
    """

    system: AnySystem
    plan: Plan
    config: RunConfig[Any, Any]
    model: Path
    states: list[JobState]


@dataclass(frozen=True)
class Wish:
    """Which jobs are wanted.

    Attributes:
        folds: None for all of the plan.
        overrides: ``-o`` as typed.
        sweep: tune every fold.
        consolidate: combine the folds at the end.
    """

    folds: Sequence[int] | None = None
    overrides: Sequence[str] = ()
    sweep: bool = False
    consolidate: bool = False


def plan_fan_out(paths: TaskPaths, models: Path, config: RunConfig[Any, Any], wish: Wish) -> FanOut:
    """The jobs and how far an earlier run brought them; starts and writes nothing.

    Raises:
        UserError: a host without stages, no plan, cases that are not preprocessed, a fold that does not exist,
            overrides that contradict.
    """
    prepared = read_plan(paths.plan(config.plan))
    system = system_of(prepared)
    plan = system.to_train(prepared, config)
    folder = ModelFolder(models / paths.name / config.exp.id)
    folds = list(range(len(plan.folds)) if wish.folds is None else wish.folds)
    jobs = build_jobs(
        {fold: system.steps(plan, config.trainer_cfg, fold) for fold in folds},
        len(plan.folds),
        paths.name,
        config.exp.id,
        wish.overrides,
        sweep=wish.sweep,
        consolidate=wish.consolidate,
    )
    made_from = _made_from(system, plan, config, paths, folder, jobs)
    states = merge_states(jobs, made_from, current_states(folder.root), folder.root)
    return FanOut(system, plan, config, folder.root, states)


def merge_states(
    jobs: Sequence[Job], made_from: dict[str, str], earlier: Sequence[JobState], model: Path
) -> list[JobState]:
    """States to begin with: a job is done when it was done before, from the same, and nothing before it runs again."""
    known = {state.job.name: state for state in earlier}
    merged: dict[str, JobState] = {}
    for job in jobs:
        before = known.get(job.name)
        fresh = JobState(job, made_from[job.name])
        if before is not None and before.made_from == fresh.made_from:
            kept = before.state == "done" and has_result(job, model)
            kept = kept and all(merged[name].state == "done" for name in job.needs)
            fresh = (
                replace(before, job=job)
                if kept
                else replace(fresh, folder=before.folder, job_id=before.job_id)
            )
        merged[job.name] = fresh
    return list(merged.values())


def _made_from(
    system: AnySystem,
    plan: Plan,
    config: RunConfig[Any, Any],
    paths: TaskPaths,
    folder: ModelFolder,
    jobs: Sequence[Job],
) -> dict[str, str]:
    """Hash of what a job's result depends on, by name."""
    folds = sorted({job.fold for job in jobs if job.fold is not None})
    inputs = {
        fold: system.inputs(TrainJob(paths, config, plan, fold, folder, lambda text: None)) for fold in folds
    }
    everything = [plan.content_hash(), config.module, system.result_settings(config.trainer_cfg)]
    tuning = [to_plain(config.sweep), [job.fold for job in jobs if job.kind == "train"]]
    hashes = {}
    for job in jobs:
        own = inputs if job.fold is None else inputs[job.fold]
        parts = [everything, job.stage, own]
        hashes[job.name] = hash_json([*parts, None if job.kind == "train" else tuning[0]])
        if job.fold is None:
            hashes[job.name] = hash_json([hashes[job.name], tuning[1]])
    return hashes
