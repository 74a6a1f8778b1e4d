"""Train one fold with nnU-Net: its loop, its checkpoints, its resume, in a results folder inside our model folder."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nndet_psma.artifacts.model_folder import PLAN, ModelFolder
from nndet_psma.core.atomic import write_json, write_text
from nndet_psma.core.errors import UserError
from nndet_psma.core.lock import FolderLock
from nndet_psma.core.schema import SchemaError, from_plain, to_plain
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.systems.nodeseg.nnunet.environment import NnunetPaths, entered, environment, settings_variable
from nndet_psma.systems.nodeseg.nnunet.model import BEST, FINAL, LATEST, SegmentationModel
from nndet_psma.systems.nodeseg.plan import NodeSegPlan, SegmentationTraining
from nndet_psma.systems.nodeseg.sampling import VALIDATION_VARIABLE

_MODES = ("auto", "resume", "overwrite")
_PACKAGES = ("nndet_psma", "nnunetv2", "torch", "numpy", "dynamic-network-architectures", "batchgeneratorsv2")


@dataclass(frozen=True)
class SegmentationRun:
    """How nnU-Net is started; keys of ``trainer_cfg`` beside those of the training itself.

    Attributes:
        num_gpus: GPUs that train together; None as planned.
        workers: processes that cut patches; None: none on a CPU, which makes runs repeatable, else nnU-Net's number.
        compile: ``torch.compile`` the network.
        validate: let nnU-Net predict its validation cases in the end, for ``nnUNetv2_find_best_configuration``.
    """

    num_gpus: int | None = None
    workers: int | None = None
    compile: bool = False
    validate: bool = True


def train_fold(
    paths: TaskPaths, models: Path, config: Any, fold: int, say: Callable[[str], None]
) -> ModelFolder:
    """Train one fold; goes on where an earlier run stopped unless ``train.mode=overwrite``.

    Args:
        paths: of the task.
        models: ``$det_models``.
        config: composed configuration; ``trainer_cfg`` overrides settings of the plan's training.
        fold: number.
        say: takes one line of progress.

    Raises:
        UserError: no plan, no such fold, not prepared, or what is there belongs to another plan.
    """
    plan = NodeSegPlan.read(paths.plan(config.plan))
    nnunet = NnunetPaths.of(paths, plan.dataset)
    _check(plan, nnunet, paths.plan(config.plan), fold)
    run, training = parse_run(_plain(config.trainer_cfg), plan.training)
    mode = config.train.mode
    if mode not in _MODES:
        raise UserError(f"unknown train.mode '{mode}'", expected=", ".join(_MODES))
    model = SegmentationModel(ModelFolder(models / paths.name / config.exp.id))
    target = model.folder.fold(fold)
    place = model.trained(plan, fold) / f"fold_{fold}"
    if mode == "resume" and not place.is_dir():
        raise UserError("there is nothing to resume", file=place, remedy="Leave train.mode at auto")
    target.mkdir(parents=True, exist_ok=True)
    with FolderLock(target):
        if mode == "overwrite":
            shutil.rmtree(place, ignore_errors=True)
        _check_same_plan(plan, target, place)
        if (place / FINAL).is_file():
            say(f"fold {fold} is trained already: {place / FINAL}")
            return model.folder
        _write_provenance(target, plan, config)
        going_on = (place / LATEST).is_file() or (place / BEST).is_file()
        changes = _changes(plan.training, training)
        with entered(variables(nnunet, model, plan, fold, run, changes)):
            _run(plan, fold, run, going_on)
    return model.folder


def parse_run(
    content: dict[str, Any], planned: SegmentationTraining
) -> tuple[SegmentationRun, SegmentationTraining]:
    """``trainer_cfg``: how to start, and the plan's training with what is set there (null keeps the plan's).

    Raises:
        UserError: an unknown key or a value out of range.
    """
    own = {each.name for each in fields(SegmentationRun)}
    given = {key: value for key, value in content.items() if value is not None}
    try:
        run = from_plain(SegmentationRun, {k: v for k, v in given.items() if k in own}, "trainer_cfg")
        changes = {k: v for k, v in given.items() if k not in own}
        training = from_plain(SegmentationTraining, {**to_plain(planned), **changes}, "trainer_cfg")
    except (SchemaError, ValueError) as error:
        raise UserError(f"configuration: {error}") from None
    return run, training


def variables(
    nnunet: NnunetPaths,
    model: SegmentationModel,
    plan: NodeSegPlan,
    fold: int,
    run: SegmentationRun,
    changes: dict[str, Any],
) -> dict[str, str]:
    """Everything nnU-Net's own command needs to train the same fold into the same folder."""
    workers = 0 if run.workers is None and plan.target.device == "cpu" else run.workers
    return {
        **environment(nnunet, model.results(fold)),
        **settings_variable(changes),
        **({} if workers is None else {"nnUNet_n_proc_DA": str(workers)}),
        "nnUNet_compile": str(run.compile).lower(),
        VALIDATION_VARIABLE: "1" if run.validate else "0",
    }


def _run(plan: NodeSegPlan, fold: int, run: SegmentationRun, going_on: bool) -> None:
    from nnunetv2.run.run_training import run_training

    cuda = torch.cuda.is_available()
    gpus = run.num_gpus if run.num_gpus is not None else plan.target.gpus
    threads = torch.get_num_threads()
    if not cuda:
        torch.set_num_threads(os.cpu_count() or 1)  # as nnU-Net's command: another number may round otherwise
    try:
        run_training(
            plan.dataset,
            plan.configuration,
            fold,
            plan.trainer,
            plan.plan_id,
            num_gpus=gpus if cuda else 1,
            continue_training=going_on,
            device=torch.device("cuda" if cuda else "cpu"),
        )
    finally:
        torch.set_num_threads(threads)


def _changes(planned: SegmentationTraining, wanted: SegmentationTraining) -> dict[str, Any]:
    before, after = to_plain(planned), to_plain(wanted)
    return {key: value for key, value in after.items() if before[key] != value}


def _check(plan: NodeSegPlan, nnunet: NnunetPaths, file: Path, fold: int) -> None:
    if not 0 <= fold < len(plan.folds):
        raise UserError(
            f"fold {fold} does not exist", expected=f"0 to {len(plan.folds) - 1} or all", file=file
        )
    folder = nnunet.preprocessed / f"{plan.plan_id}_{plan.configuration}"
    missing = [name for name in _cases(plan, fold) if not (folder / f"{name}.b2nd").is_file()]
    if missing:
        raise UserError(
            "cases are not preprocessed for this plan",
            file=folder,
            found=f"without {', '.join(missing[:5])}",
            remedy="Run nndet_prep",
        )


def _cases(plan: NodeSegPlan, fold: int) -> list[str]:
    return [*plan.folds[fold].train, *plan.folds[fold].val]


def _check_same_plan(plan: NodeSegPlan, target: Path, place: Path) -> None:
    """Weights that are there must belong to this plan."""
    file = target / PLAN
    if not place.is_dir() or not file.is_file():
        return
    if NodeSegPlan.read(file).content_hash() != plan.content_hash():
        raise UserError(
            "the weights there were trained with another plan",
            file=place,
            remedy="Train anew with -o train.mode=overwrite, or keep both with -o exp.tag=_NAME",
        )


def _write_provenance(folder: Path, plan: NodeSegPlan, config: Any) -> None:
    from omegaconf import OmegaConf

    plan.write(folder / PLAN)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    content = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in _PACKAGES},
        "plan": plan.content_hash(),
    }
    write_json(folder / "environment.json", content)


def _plain(config: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(config, resolve=True)
