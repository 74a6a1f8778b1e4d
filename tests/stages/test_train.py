"""Stage train: what is recorded beside the weights, and that a refused run leaves it alone."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from tiny_place import MODEL, TASK, snapshot

from nndet_psma.artifacts.plan_file import read_plan
from nndet_psma.cli.config import compose_config
from nndet_psma.core.errors import UserError
from nndet_psma.stages.train import folds_to_train, package_versions, train_fold

QUICK = ["trainer_cfg.iterations=1", "trainer_cfg.num_workers=0", "exp.voter=wsi"]


def _train(place, *overrides, fold=0):
    return train_fold(place.paths, place.models, compose_config(TASK, [*QUICK, *overrides]), fold, print)


def test_plan_configuration_and_versions_are_recorded(in_task):
    folder = _train(in_task, "+plan_overwrites.seed=7", "exp.tag=_b")
    assert folder.root == in_task.models / TASK / f"{MODEL}_b"
    plan = read_plan(folder.fold(0) / "plan.json")
    assert plan.seed == 7
    assert in_task.plan.seed == 12345  # the prepared plan stays
    config = (folder.fold(0) / "config.yaml").read_text()
    assert "iterations: 1" in config
    assert f"id: {MODEL}_b" in config
    environment = json.loads((folder.fold(0) / "environment.json").read_text())
    assert environment["plan"] == plan.content_hash()
    assert environment["packages"]["torch"] == package_versions()["torch"] != "not installed"


def test_refused_plan_leaves_the_folder_alone(in_task):
    """Else the old weights would be predicted with the new plan."""
    folder = _train(in_task).fold(0)
    before = snapshot(folder)
    for override in ("+plan_overwrites.margin_mm=9.0", "trainer_cfg.learning_rate=0.5"):
        with pytest.raises(UserError, match="was trained from another plan"):
            _train(in_task, override)
        assert snapshot(folder) == before


def test_plan_that_differs_in_tuning_only_is_taken_over(in_task):
    folder = _train(in_task).fold(0)
    weights = (folder / "wsi/model.safetensors").stat().st_mtime_ns
    _train(in_task, "+plan_overwrites.postproc_grid.min_votes=[1]")
    assert read_plan(folder / "plan.json").postproc_grid["min_votes"] == [1]
    assert (folder / "wsi/model.safetensors").stat().st_mtime_ns == weights


def test_overwrite_takes_the_new_plan(in_task):
    folder = _train(in_task).fold(0)
    first = (folder / "wsi/model.safetensors").read_bytes()
    _train(in_task, "+plan_overwrites.seed=5", "train.mode=overwrite")
    assert read_plan(folder / "plan.json").seed == 5
    assert (folder / "wsi/model.safetensors").read_bytes() != first


def test_overwrites_that_need_another_store(in_task):
    for override in ("+plan_overwrites.spacing=[4.0,1.0,1.0]", "+plan_overwrites.body_margin_mm=20.0"):
        with pytest.raises(UserError, match=r"change how images are preprocessed.*nndet_prep, too"):
            _train(in_task, override)
    assert not any(in_task.models.iterdir())


def test_folds():
    plan = SimpleNamespace(folds=[1, 2, 3])
    assert folds_to_train(compose_config("t", ["exp.fold=all"]), plan) == [0, 1, 2]
    assert folds_to_train(compose_config("t", ["exp.fold=2"]), plan) == [2]
    for wrong in ("1.5", "null", "true", "[0,1]"):
        with pytest.raises(UserError, match=r"exp\.fold: expected int or one of"):
            folds_to_train(compose_config("t", [f"exp.fold={wrong}"]), plan)
