"""Stage train: one fold, with what it was trained from beside it."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from nndet_psma.artifacts.model_folder import PLAN, ModelFolder
from nndet_psma.artifacts.plan import Plan
from nndet_psma.artifacts.plan_file import read_plan
from nndet_psma.artifacts.run_config import RunConfig
from nndet_psma.core.atomic import write_json, write_text
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.logs import LOGGER, log_to
from nndet_psma.core.schema import to_plain
from nndet_psma.core.shortages import memory_explained
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.stages.plan_check import check_plan, check_trainer, patients_of
from nndet_psma.systems.system import SYSTEMS, TrainJob, system_of
from nndet_psma.trainers.distributed import is_main

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
_PACKAGES = (
    "nndet_psma",
    "torch",
    "torchvision",
    "nnunetv2",
    "numpy",
    "scipy",
    "SimpleITK",
    "accelerate",
    "batchgenerators",
    "batchgeneratorsv2",
    "dynamic-network-architectures",
)


def train_fold(
    paths: TaskPaths, models: Path, config: RunConfig[Any, Any], fold: int, say: Callable[[str], None]
) -> ModelFolder:
    """Train one fold; goes on where an earlier run stopped unless ``train.mode=overwrite``.

    Args:
        paths: of the task.
        models: ``$det_models``.
        config: of the command.
        fold: number.
        say: takes one line of progress.

    Raises:
        UserError: no plan, no such fold or trainer, or what is there belongs to another plan.
    """
    file = paths.plan(config.plan)
    prepared = read_plan(file)
    system = system_of(prepared)
    system.require()
    check_trainer(system, config.module, file)
    plan = system.to_train(prepared, config)
    if not 0 <= fold < len(plan.folds):
        raise UserError(
            f"fold {fold} does not exist", expected=f"0 to {len(plan.folds) - 1} or all", file=file
        )
    folder = ModelFolder(models / paths.name / config.exp.id)
    job = TrainJob(paths, config, plan, fold, folder, say)
    names = system.check_prepared(job, prepared)
    check_plan(plan, file, read_description(paths.root), names, patients_of(paths, names))
    if config.train.mode == "resume" and not job.folder.is_dir():
        raise UserError("there is nothing to resume", file=job.folder, remedy="Leave train.mode at auto")
    job.folder.mkdir(parents=True, exist_ok=True)
    main = is_main()
    # weights that are there keep their own plan until the trainer has accepted the new one
    if main and (job.overwrite or not (job.folder / PLAN).is_file()):
        _write_provenance(job.folder, plan, config)
    with log_to(job.folder / "train.log", folder.root, paths.root) if main else nullcontext():
        LOGGER.info("fold %d of %s, plan %s", fold, config.exp.id, plan.content_hash())
        with memory_explained(_what_to_lower(plan, config)):
            system.train(job)
    if main:
        _write_provenance(job.folder, plan, config)
    return folder


def _what_to_lower(plan: Plan, config: RunConfig[Any, Any]) -> str:
    """Of a training that does not fit into memory."""
    if not hasattr(config.trainer_cfg, "batch_size"):
        return "Plan for less memory: nndet_prep -o plan_cfg.gpu_memory_gb=N prep.overwrite=true"
    size = config.trainer_cfg.batch_size or getattr(plan, "batch_size", "the plan's")
    return f"Lower trainer_cfg.batch_size (now {size}), then trainer_cfg.num_workers, or end other programs"


def folds_to_train(config: RunConfig[Any, Any], plan: Plan) -> list[int]:
    """``exp.fold``: a number, or all of the plan's."""
    wanted = config.exp.fold
    return list(range(len(plan.folds))) if wanted == "all" else [wanted]


def _write_provenance(folder: Path, plan: Plan, config: RunConfig[Any, Any]) -> None:
    plan.write(folder / PLAN)
    content = to_plain(config)
    write_text(folder / CONFIG, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    own = SYSTEMS.package_of(config.system)  # a third party's where the system is
    environment = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions() | dict([own] if own else []),
        "plan": plan.content_hash(),
        "config": hash_json(content),
    }
    write_json(folder / ENVIRONMENT, environment)


def package_versions(*more: str) -> dict[str, str]:
    """Installed versions of the packages that matter for results, and of ``more``."""
    found = {}
    for name in (*_PACKAGES, *more):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
