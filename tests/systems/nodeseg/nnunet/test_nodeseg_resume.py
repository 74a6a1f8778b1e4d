"""A segmentation that goes on was begun with the same training: nnU-Net's loop is played, the rest is real."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from segmentation_plan import segmentation_plan
from tiny_place import TASK

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.cli.config import compose_config
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.systems.nodeseg.nnunet import train
from nndet_psma.systems.nodeseg.nnunet.model import LATEST, SegmentationModel
from nndet_psma.systems.nodeseg.settings import MACHINE_KEYS, NodeSegSettings
from nndet_psma.systems.system import TrainJob

CHANGES = {
    "epochs": 7, "iterations": 7, "validation_iterations": 7, "learning_rate": 0.5, "loss": "dice",
    "augmentation": "none", "save_every": 7, "seed": 7, "num_gpus": 2, "workers": 3, "compile": True,
    "validate": False,
}  # fmt: skip


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A fold whose training was stopped after its first checkpoint; every later start is noted."""
    starts = []
    config = compose_config(TASK, ["train=nodeseg"])
    model = ModelFolder(tmp_path / "models")
    job = TrainJob(TaskPaths(tmp_path / TASK), config, segmentation_plan(), 0, model, starts.append)
    place = SegmentationModel(model).trained(job.plan, 0) / "fold_0"

    def play(plan, fold, settings, going_on):
        starts.append(going_on)
        place.mkdir(parents=True, exist_ok=True)
        (place / LATEST).touch()

    monkeypatch.setattr(train, "_run", play)
    train.train_fold(job)
    assert starts == [False]
    return job, starts


def _with(job, **changes):
    return replace(job, config=replace(job.config, trainer_cfg=NodeSegSettings(**changes)))


def test_every_key_is_tried():
    assert set(CHANGES) == {field.name for field in fields(NodeSegSettings)}
    assert set(MACHINE_KEYS) <= set(CHANGES)


@pytest.mark.parametrize("name", CHANGES)
def test_another_training_is_refused(job, name):
    job, starts = job
    changed = _with(job, **{name: CHANGES[name]})
    if name in MACHINE_KEYS:
        train.train_fold(changed)
        assert starts == [False, True]
        return
    message = rf"fold_0: the weights there were trained with another trainer_cfg.*other values of {name}\. Train anew"
    with pytest.raises(UserError, match=message):
        train.train_fold(changed)
    assert starts == [False]


def test_the_planned_value_is_no_change(job):
    job, starts = job
    train.train_fold(_with(job, epochs=job.plan.training.epochs))
    assert starts == [False, True]


def test_overwrite_begins_anew_with_the_other(job):
    job, starts = job
    other = _with(job, learning_rate=0.5)
    anew = replace(other, config=replace(other.config, train=replace(other.config.train, mode="overwrite")))
    train.train_fold(anew)
    train.train_fold(other)
    assert starts == [False, False, True]
    record = json.loads((job.folder / "training.json").read_text())
    assert record["learning_rate"] == 0.5
    assert not set(record) & set(MACHINE_KEYS)


def test_another_plan_is_refused(job):
    job, starts = job
    with pytest.raises(UserError, match="the weights there were trained with another plan"):
        train.train_fold(replace(job, plan=replace(job.plan, margin_mm=11.0)))
    assert starts == [False]
