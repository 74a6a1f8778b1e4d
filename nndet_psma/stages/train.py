"""Stage train: one fold, all its stages."""

from __future__ import annotations

import json
import platform
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.plan import Plan
from nndet_psma.core.atomic import write_text
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.logs import LOGGER, log_to
from nndet_psma.dataset.task.clinical import patient_of, read_clinical
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.preprocess.build import preprocessing_hash
from nndet_psma.stages.plan_check import check_names, check_plan
from nndet_psma.stages.prep import override_plan, plain_overwrites
from nndet_psma.trainers.distributed import is_main
from nndet_psma.trainers.registry import TRAINERS, FoldJob
from nndet_psma.trainers.settings import TrainerSettings

_PACKAGES = (
    "nndet_psma",
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "SimpleITK",
    "accelerate",
    "batchgenerators",
)


def train_fold(paths: TaskPaths, models: Path, config: Any, fold: int) -> ModelFolder:
    """Train one fold; goes on where an earlier run stopped unless ``train.mode=overwrite``.

    Raises:
        UserError: no plan, no such fold or trainer, or what is there belongs to another plan.
    """
    prepared = Plan.read(paths.plan(config.plan))
    plan = override_plan(prepared, plain_overwrites(config))
    if preprocessing_hash(plan, "") != preprocessing_hash(prepared, ""):
        raise UserError(
            "plan_overwrites change how images are preprocessed, which has happened already",
            file=paths.plan(config.plan),
            remedy="Give these overwrites to nndet_prep, too (with -o prep.overwrite=true)",
        )
    store = paths.store(plan.data_identifier)
    _check(plan, paths, paths.plan(config.plan), store)
    if not 0 <= fold < len(plan.folds):
        raise UserError(
            f"fold {fold} does not exist",
            expected=f"0 to {len(plan.folds) - 1} or all",
            file=paths.plan(config.plan),
        )
    mode = config.train.mode
    if mode not in ("auto", "resume", "overwrite"):
        raise UserError(f"unknown train.mode '{mode}'", expected="auto, resume or overwrite")
    settings = TrainerSettings.parse(_plain(config.trainer_cfg))
    trainer = TRAINERS[config.module]()
    check_names(replace(plan, trainer=str(config.module)), paths.plan(config.plan))
    folder = ModelFolder(models / paths.name / config.exp.id)
    target = folder.fold(fold)
    if mode == "resume" and not target.is_dir():
        raise UserError("there is nothing to resume", file=target, remedy="Leave train.mode at auto")
    target.mkdir(parents=True, exist_ok=True)
    main = is_main()
    # weights that are there keep their own plan until the trainer has accepted the new one
    if main and (mode == "overwrite" or not (target / "plan.json").is_file()):
        _write_provenance(target, plan, config)
    job = FoldJob(plan, fold, store, target, settings, mode == "overwrite", config.exp.voter)
    with log_to(target / "train.log") if main else nullcontext():
        LOGGER.info("fold %d of %s, plan %s", fold, config.exp.id, plan.content_hash())
        if plan.target.device == "cpu" and _gpu_visible():
            LOGGER.warning(
                "the plan is a small one for the CPU; nndet_prep -o plan_cfg.target=gpu plans for this GPU"
            )
        trainer.train(job)
    if main:
        _write_provenance(target, plan, config)
    return folder


def _gpu_visible() -> bool:
    import torch

    return torch.cuda.is_available()


def _check(plan: Plan, paths: TaskPaths, file: Path, store: Path) -> None:
    """The plan against the preprocessed cases; raw data need not be on the machine that trains."""
    if not store.is_dir():
        raise UserError("the cases are not preprocessed for this plan", file=store, remedy="Run nndet_prep")
    names = [folder.name for folder in store.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    clinical = read_clinical(paths)
    patients = {name: patient_of(name, clinical) for name in names}
    check_plan(plan, file, read_description(paths.root), names, patients)


def folds_to_train(config: Any, plan: Plan) -> list[int]:
    """``exp.fold``: a number, or "all".

    Raises:
        UserError: neither.
    """
    wanted = config.exp.fold
    if wanted == "all":
        return list(range(len(plan.folds)))
    if not isinstance(wanted, int) or isinstance(wanted, bool):
        raise UserError(f"exp.fold is '{wanted}'", expected="a number or all")
    return [wanted]


def _write_provenance(folder: Path, plan: Plan, config: Any) -> None:
    from omegaconf import OmegaConf

    plan.write(folder / "plan.json")
    write_text(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    environment = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
    }
    environment["plan"] = plan.content_hash()
    environment["config"] = hash_json(_plain(config))
    write_text(folder / "environment.json", json.dumps(environment, indent=2) + "\n")


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that matter for results."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _plain(config: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(config, resolve=True)
