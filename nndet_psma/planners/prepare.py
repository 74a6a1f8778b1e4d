"""Plan a task: target machine, folds, planner."""

from __future__ import annotations

from collections.abc import Mapping

from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.plan import FoldPlan, Plan, Target
from nndet_psma.dataset.paths import TaskPaths
from nndet_psma.dataset.splits import make_folds, read_splits
from nndet_psma.planners.options import PlannerOptions
from nndet_psma.planners.registry import PLANNERS
from nndet_psma.planners.rules import fold_count

_DEFAULT_GPU_GB = 24.0


def make_plan(
    fingerprint: Fingerprint,
    paths: TaskPaths,
    options: PlannerOptions,
    *,
    planner: str,
    plan_id: str,
    trainer: str,
) -> Plan:
    """The plan of ``planner``; nothing is written."""
    target = choose_target(options)
    folds = choose_folds(fingerprint, paths, options)
    return PLANNERS[planner]().plan(
        fingerprint, options, plan_id=plan_id, trainer=trainer, target=target, folds=folds
    )


def choose_target(options: PlannerOptions) -> Target:
    """The machine to plan for: as told, else the first GPU, else the CPU. No GPU is needed to plan for one."""
    if options.target == "cpu":
        return Target("cpu", 0.0)
    visible = _visible_gpu_gb()
    if options.target == "auto" and visible is None and options.gpu_memory_gb is None:
        return Target("cpu", 0.0)
    return Target("gpu", options.gpu_memory_gb or visible or _DEFAULT_GPU_GB)


def choose_folds(fingerprint: Fingerprint, paths: TaskPaths, options: PlannerOptions) -> list[FoldPlan]:
    """The user's splits.json, else folds grouped by patient, even in risk group and lesion count."""
    patients = {case.case_id: case.patient_id for case in fingerprint.cases}
    if paths.splits.is_file():
        own = read_splits(paths.splits, case_ids=list(patients), patients=patients)
        return [FoldPlan(list(fold.train), list(fold.val)) for fold in own]
    strata: Mapping[str, str] = {case.case_id: case.stratum for case in fingerprint.cases}
    counts = {case.case_id: len(case.lesions) for case in fingerprint.cases}
    folds = make_folds(
        list(patients),
        patients=patients,
        strata=strata,
        lesion_counts=counts,
        num_folds=fold_count(options.num_folds, len(set(patients.values()))),
        seed=options.seed,
    )
    return [FoldPlan(list(fold.train), list(fold.val)) for fold in folds]


def _visible_gpu_gb() -> float | None:
    import torch

    if not torch.cuda.is_available():
        return None
    return float(torch.cuda.get_device_properties(0).total_memory / 1e9)
