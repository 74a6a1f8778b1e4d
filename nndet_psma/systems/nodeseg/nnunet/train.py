"""Train one fold with nnU-Net: its loop, its checkpoints, its resume, in a results folder inside our model folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from nndet_psma.artifacts.model_folder import PLAN
from nndet_psma.core.atomic import read_json, write_json, write_text
from nndet_psma.core.errors import UserError
from nndet_psma.core.lock import FolderLock
from nndet_psma.core.logs import LOGGER
from nndet_psma.core.relative_paths import relative_text
from nndet_psma.core.schema import to_plain
from nndet_psma.systems.nodeseg.nnunet.environment import (
    NnunetPaths,
    entered,
    environment,
    settings_variable,
)
from nndet_psma.systems.nodeseg.nnunet.model import BEST, FINAL, LATEST, SegmentationModel
from nndet_psma.systems.nodeseg.options import NodeSegOptions
from nndet_psma.systems.nodeseg.plan import NodeSegPlan
from nndet_psma.systems.nodeseg.sampling import VALIDATION_VARIABLE
from nndet_psma.systems.nodeseg.settings import NodeSegSettings
from nndet_psma.systems.system import TrainJob

_OTHER = "Train anew with -o train.mode=overwrite, or keep both with -o exp.tag=_NAME"
_TEXTS = ("training_log_*.txt", "debug.json", "validation/summary.json")
_TRAINED_WITH = "training.json"  # the plan's training with what trainer_cfg changed of it
Job = TrainJob[NodeSegPlan, NodeSegOptions, NodeSegSettings]


def prepared_cases(job: Job) -> list[str]:
    """Cases that nnU-Net has preprocessed for the plan.

    Raises:
        UserError: a case of the fold is not among them.
    """
    plan = job.plan
    nnunet = NnunetPaths.of(job.paths, plan.dataset)
    folder = nnunet.preprocessed / f"{plan.plan_id}_{plan.configuration}"
    written = {file.name.removesuffix(".b2nd") for file in folder.glob("*.b2nd")}
    found = sorted(name for name in written if f"{name}_seg" in written)
    needed = [*plan.folds[job.fold].train, *plan.folds[job.fold].val]
    missing = [name for name in needed if name not in found]
    if missing:
        raise UserError(
            "cases are not preprocessed for this plan",
            file=folder,
            found=f"without {', '.join(missing[:5])}",
            remedy="Run nndet_prep",
        )
    return found


def train_fold(job: Job) -> None:
    """Train one fold; goes on where an earlier run stopped unless ``train.mode=overwrite``.

    Raises:
        UserError: what is there was trained with another plan or other settings.
    """
    plan, settings = job.plan, job.config.trainer_cfg
    nnunet = NnunetPaths.of(job.paths, plan.dataset)
    changes = _changes(job)
    model = SegmentationModel(job.model)
    place = model.trained(plan, job.fold) / f"fold_{job.fold}"
    with FolderLock(job.folder):
        if job.overwrite:
            shutil.rmtree(place, ignore_errors=True)
        _check_same(job, place)
        make_paths_relative(place, job.model.root, job.paths.root)  # of a run that was killed
        if (place / FINAL).is_file():
            job.say(f"fold {job.fold} is trained already: {place / FINAL}")
            return
        plan.write(job.folder / PLAN)
        write_json(job.folder / _TRAINED_WITH, settings.result_keys(plan.training))
        LOGGER.info("nnU-Net's own log, of all its processes: training_log_*.txt in %s", place)
        going_on = (place / LATEST).is_file() or (place / BEST).is_file()
        try:
            with entered(variables(nnunet, model, plan, job.fold, settings, changes)):
                _run(plan, job.fold, settings, going_on)
        finally:
            make_paths_relative(place, job.model.root, job.paths.root)


def make_paths_relative(place: Path, *folders: Path) -> None:
    """Rewrite the texts that nnU-Net leaves beside its weights: their paths name the user, perhaps a patient.

    Args:
        place: nnU-Net's folder of the fold.
        folders: absolute; paths below them become relative to them.
    """
    for pattern in _TEXTS:
        for file in place.glob(pattern):
            text = file.read_text(encoding="utf-8", errors="replace")
            write_text(file, relative_text(text, *folders))


def variables(
    nnunet: NnunetPaths,
    model: SegmentationModel,
    plan: NodeSegPlan,
    fold: int,
    settings: NodeSegSettings,
    changes: dict[str, Any],
) -> dict[str, str]:
    """Everything nnU-Net's own command needs to train the same fold into the same folder."""
    workers = 0 if settings.workers is None and plan.target.device == "cpu" else settings.workers
    return {
        **environment(nnunet, model.results(fold)),
        **settings_variable(changes),
        **({} if workers is None else {"nnUNet_n_proc_DA": str(workers)}),
        "nnUNet_compile": str(settings.compile).lower(),
        VALIDATION_VARIABLE: "1" if settings.validate else "0",
    }


def _run(plan: NodeSegPlan, fold: int, settings: NodeSegSettings, going_on: bool) -> None:
    from nnunetv2.run.run_training import run_training

    cuda = torch.cuda.is_available()
    gpus = settings.num_gpus if settings.num_gpus is not None else plan.target.gpus
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


def _changes(job: Job) -> dict[str, Any]:
    """What ``trainer_cfg`` changes of the plan's training."""
    before = to_plain(job.plan.training)
    after = to_plain(job.config.trainer_cfg.training(job.plan.training))
    return {key: value for key, value in after.items() if before[key] != value}


def _check_same(job: Job, place: Path) -> None:
    """Weights that are there must belong to this plan, and to a training as it is wanted now."""
    if not place.is_dir():
        return
    file, record = job.folder / PLAN, job.folder / _TRAINED_WITH
    if file.is_file() and NodeSegPlan.read(file).content_hash() != job.plan.content_hash():
        raise UserError("the weights there were trained with another plan", file=place, remedy=_OTHER)
    if not record.is_file():
        return
    before, now = read_json(record), job.config.trainer_cfg.result_keys(job.plan.training)
    differing = [name for name in now if before.get(name) != now[name]]
    if differing:
        raise UserError(
            "the weights there were trained with another trainer_cfg",
            file=place,
            found=f"other values of {', '.join(differing)}",
            remedy=_OTHER,
        )
