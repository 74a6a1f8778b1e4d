"""Stage train-all: which jobs a whole training has, and which of them an earlier run has done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nndet_psma.artifacts.plan import Plan
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.jobs.graph import Job, build_jobs
from nndet_psma.jobs.record import JobState
from nndet_psma.jobs.scheduler import has_result
from nndet_psma.jobs.status import current_states
from nndet_psma.preprocess.store import inputs_hash
from nndet_psma.stages.prep import override_plan, plain_overwrites
from nndet_psma.trainers.settings import MACHINE_KEYS, TrainerSettings, adjusted_stage


@dataclass(frozen=True)
class FanOut:
    """What is to be trained.

    Attributes:
        plan: with overrides applied.
        settings: ``trainer_cfg``.
        model: model folder, ``det_models/TASK/MODULE_PLAN``.
        states: the jobs; finished ones of an earlier run are ``done``.
        iterations: steps of every stage.
    """

    plan: Plan
    settings: TrainerSettings
    model: Path
    states: list[JobState]
    iterations: dict[str, int]


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


def plan_fan_out(paths: TaskPaths, models: Path, config: Any, wish: Wish) -> FanOut:
    """The jobs and how far an earlier run brought them; starts and writes nothing.

    Raises:
        UserError: a host without stages, no plan, cases that are not preprocessed, a fold that does not exist,
            overrides that contradict.
    """
    if config.host != "embedded":
        raise UserError(
            "train-all makes a job of every stage of a detector; a segmentation has one training per fold",
            remedy=f"Run nndet_train {paths.name} -o train=nodeseg exp.fold=all --sweep, or one command per fold",
        )
    plan = override_plan(Plan.read(paths.plan(config.plan)), plain_overwrites(config))
    settings = TrainerSettings.parse(_plain(config.trainer_cfg))
    model = models / paths.name / config.exp.id
    folds = range(len(plan.folds)) if wish.folds is None else wish.folds
    jobs = build_jobs(
        plan,
        folds,
        paths.name,
        config.exp.id,
        wish.overrides,
        sweep=wish.sweep,
        consolidate=wish.consolidate,
    )
    made_from = _made_from(plan, config, paths.store(plan.data_identifier), jobs)
    states = merge_states(jobs, made_from, current_states(model), model)
    iterations = {stage.name: adjusted_stage(stage, settings).iterations for stage in plan.stages}
    return FanOut(plan, settings, model, states, iterations)


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


def _made_from(plan: Plan, config: Any, store: Path, jobs: Sequence[Job]) -> dict[str, str]:
    """Hash of what a job's result depends on, by name."""
    settings = {k: v for k, v in _plain(config.trainer_cfg).items() if k not in MACHINE_KEYS}
    cases = sorted({case for job in jobs if job.fold is not None for case in _cases(plan, job.fold)})
    inputs = {case: inputs_hash(store, case) for case in cases}
    everything = [plan.content_hash(), str(config.module), settings]
    tuning = [to_plain(_plain(config.sweep)), [job.fold for job in jobs if job.kind == "train"]]
    hashes = {}
    for job in jobs:
        own = cases if job.fold is None else _cases(plan, job.fold)
        parts = [everything, job.stage, {case: inputs[case] for case in own}]
        hashes[job.name] = hash_json([*parts, None if job.kind == "train" else tuning[0]])
        if job.fold is None:
            hashes[job.name] = hash_json([hashes[job.name], tuning[1]])
    return hashes


def _cases(plan: Plan, fold: int) -> list[str]:
    return [*plan.folds[fold].train, *plan.folds[fold].val]


def _plain(config: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(config, resolve=True)
