"""Jobs of a plan, as ``train-all`` makes them."""

from nndet_psma.jobs.graph import Job, build_jobs
from nndet_psma.systems.system import system_of
from nndet_psma.trainers.settings import TrainerSettings


def plan_jobs(plan, folds, task="T", model="M", overrides=(), **options) -> list[Job]:
    system = system_of(plan)
    steps = {fold: system.steps(plan, TrainerSettings(), fold) for fold in folds}
    return build_jobs(steps, len(plan.folds), task, model, overrides, **options)
