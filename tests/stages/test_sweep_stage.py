"""Stages sweep and consolidate: self-contained, honest about their cases, and not redone in vain."""

from __future__ import annotations

import json
import shutil

import pytest
from tiny_place import MODEL, TASK, TRAINING, snapshot

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.artifacts.raw_predictions import read_raw
from nndet_psma.cli import consolidate
from nndet_psma.cli.config import compose_config
from nndet_psma.core.errors import UserError
from nndet_psma.core.lock import LOCK_FILE, FolderLock
from nndet_psma.stages import sweep as stage
from nndet_psma.systems.psma25d.system import PSMA25D


@pytest.fixture
def place(trained, tiny_task, tmp_path, monkeypatch):
    """Models of the test's own, data read only."""
    from tiny_place import Workplace

    shutil.copytree(trained.models, tmp_path / "models")
    own = Workplace(tiny_task.data, tmp_path / "models")
    own.enter(monkeypatch)
    return own


def test_every_validation_case_is_predicted_by_the_fold_that_did_not_see_it(trained):
    folder = ModelFolder(trained.model)
    for fold in (0, 1):
        plan = folder.plan(fold)
        files = sorted(file.stem for file in (folder.fold(fold) / "sweep_predictions").glob("*.npz"))
        assert files == sorted(plan.folds[fold].val)
        assert not set(files) & set(plan.folds[fold].train)
    assert {"case_0", "case_1"} <= set(folder.plan(0).folds[0].val) | set(folder.plan(0).folds[0].train)
    together = {fold for fold in (0, 1) if "case_0" in folder.plan(0).folds[fold].val}
    assert together == {fold for fold in (0, 1) if "case_1" in folder.plan(0).folds[fold].val}  # one patient


def test_consolidated_model_is_tuned_on_all_folds(trained):
    plan = InferencePlan.read(trained.model / "consolidated/plan_inference.json")
    assert plan.folds == [0, 1]
    assert sorted(plan.cases) == sorted(TRAINING)
    predictions = sorted(file.name for file in (trained.model / "consolidated/val_predictions").iterdir())
    assert predictions == [f"{case}_boxes.json" for case in sorted(TRAINING)]


def test_consolidated_weights_are_those_of_the_folds(trained):
    for fold in (0, 1):
        for name in (s.name for s in trained.plan.stages):
            copy = trained.model / f"consolidated/fold{fold}/{name}/model.safetensors"
            assert copy.read_bytes() == (trained.model / f"fold{fold}/{name}/model.safetensors").read_bytes()


def test_again_changes_nothing(place):
    """Also the predictions and results that lie in the consolidated folder stay."""
    before = snapshot(place.model)
    assert consolidate.main(["900", MODEL, "--sweep_boxes"]) == 0
    assert snapshot(place.model) == before
    assert consolidate.main(["900", MODEL]) == 0  # without tuning: the tuned thresholds stay
    assert snapshot(place.model) == before


def test_validation_is_not_predicted_twice(place, monkeypatch):
    from nndet_psma.inference.predictor import VoterEnsemble

    def refuse(*_, **__):
        raise AssertionError("predicted again")

    monkeypatch.setattr(VoterEnsemble, "predict", refuse)
    assert consolidate.main(["900", MODEL, "--sweep_boxes"]) == 0


def test_changed_store_is_predicted_again(own_copy):
    """The arrays changed, the geometry did not: the old raw predictions are stale."""
    from dataclasses import replace

    from nndet_psma.preprocess.store import read_case, write_case

    folder = ModelFolder(own_copy.model)
    name = folder.plan(0).folds[0].val[0]
    raw = folder.fold(0) / "sweep_predictions" / f"{name}.npz"
    before = read_raw(raw).meta.made_from
    case = read_case(own_copy.store, name)
    write_case(own_copy.store, replace(case, arrays={k: v + 50 for k, v in case.arrays.items()}), "new")
    stage.sweep_fold(own_copy.paths, folder, 0, compose_config(TASK, []))
    assert read_raw(raw).meta.made_from != before


def test_fewer_folds_make_another_model(place, capsys):
    assert consolidate.main(["900", MODEL, "--folds", "1"]) == 0
    target = place.model / "consolidated"
    assert not (target / "fold0").exists()
    assert not (target / "test_predictions").exists()  # of the model that is gone
    plan = InferencePlan.read(target / "plan_inference.json")
    assert (plan.folds, plan.value) == ([1], None)
    assert "not tuned" in capsys.readouterr().out


def test_interrupted_consolidation_leaves_the_old_model(place, monkeypatch):
    before = snapshot(place.model / "consolidated")

    def interrupt(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(PSMA25D, "copy_weights", lambda self, source, target: interrupt(source, target))
    assert consolidate.main(["900", MODEL, "--folds", "1"]) == 130
    assert snapshot(place.model / "consolidated") == before
    assert not list(place.model.glob(".tmp-*"))


def test_two_consolidations_at_once_are_refused(place, capsys):
    before = snapshot(place.model / "consolidated")
    with FolderLock(place.model):
        assert consolidate.main(["900", MODEL, "--folds", "1"]) == 2
    assert "another process makes a consolidated model here; found process" in capsys.readouterr().err
    assert snapshot(place.model / "consolidated") == before
    assert not (place.model / LOCK_FILE).exists()


def test_stale_validation_predictions_go(place):
    old = place.model / "fold0/val_predictions/gone_boxes.json"
    shutil.copy(next((place.model / "fold0/val_predictions").iterdir()), old)
    stage.sweep_fold(place.paths, ModelFolder(place.model), 0, compose_config(TASK, []))
    assert not old.exists()


def test_plain_and_nested_value_stand_side_by_side(trained):
    """Folds are held out where there are several, else patients: case_0 and case_1 are one patient's."""
    for place, groups in (("consolidated", 2), ("fold0", None)):
        content = json.loads((trained.model / place / "sweep.json").read_text())
        nested = content["nested"]
        assert content["best"]["value"] - nested["value"] == pytest.approx(nested["optimism"])
        assert len(nested["settings"]) == len(nested["groups"]) == (groups or len(nested["groups"]))
        for group in nested["groups"]:
            assert ("case_0" in group) == ("case_1" in group)
        plan = InferencePlan.read(trained.model / place / "plan_inference.json")
        assert f"groups held out: f1 {nested['value']:.3f}" in plan.source
    consolidated = json.loads((trained.model / "consolidated/sweep.json").read_text())["nested"]["groups"]
    folds = ModelFolder(trained.model).plan(0).folds
    assert sorted(map(sorted, consolidated)) == sorted(sorted(fold.val) for fold in folds)


def test_nested_can_be_left_out_and_another_search_chosen(place):
    config = compose_config(TASK, ["sweep.nested=false", "sweep.search=two_phase"])
    plan = stage.sweep_fold(place.paths, ModelFolder(place.model), 0, config)
    content = json.loads((place.model / "fold0/sweep.json").read_text())
    assert (content["nested"], content["search"], content["table"]) == (None, "two_phase", None)
    assert "held out" not in plan.source


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "sweep.search=grid",
            "unknown sweep search 'grid'; expected one of joint, two_phase, coarse, optuna",
        ),
        ("sweep.nested=5", "sweep.nested: expected bool, found 5"),
        ("sweep.trials=0", "trials must be at least 1, found 0"),
    ],
)
def test_wrong_options(place, override, message):
    with pytest.raises(UserError, match=message):
        stage.sweep_fold(place.paths, ModelFolder(place.model), 0, compose_config(TASK, [override]))


def test_without_weights_it_is_tuned_but_cannot_predict(place, capsys):
    assert consolidate.main(["900", MODEL, "--sweep_boxes", "--no_model"]) == 0
    target = place.model / "consolidated"
    assert not list(target.rglob("*.safetensors"))
    assert InferencePlan.read(target / "plan_inference.json").value is not None
    assert len(list((target / "val_predictions").iterdir())) == len(TRAINING)
    assert consolidate.main(["900", MODEL, "--sweep_boxes"]) == 0  # with weights: not taken for the same
    assert list(target.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-c", "best"], "checkpoint 'best' asked for; expected 'model'"),
        (["--ckpt", "last"], "trainer_cfg.select"),
        (["--sweep_instances"], "only boxes are tuned, no instance masks"),
        (["--no_model"], "--no_model without --sweep_boxes leaves nothing to do"),
    ],
)
def test_arguments_of_nndetection_that_do_not_apply(place, capsys, arguments, message):
    assert consolidate.main(["900", MODEL, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_criterion_is_recorded(place):
    config = compose_config(TASK, ["sweep.criterion=sensitivity@fp=4"])
    plan = stage.sweep_fold(place.paths, ModelFolder(place.model), 0, config)
    assert plan.criterion == "sensitivity@fp=4"
    prediction = Prediction.read(next((place.model / "fold0/val_predictions").iterdir()))
    assert prediction.search_region == "ctv"


def test_scans_of_one_patient_are_one_patient_to_the_sweep(own_copy, monkeypatch):
    """The AUC over patients that is maximised is the one that is reported."""
    from nndet_psma.inference import tuning

    seen = {}

    def tune(cases, *_, **__):
        seen.update({case.case_id: case.patient for case in cases})
        raise UserError("stopped here")

    monkeypatch.setattr(tuning, "tune", tune)
    with pytest.raises(UserError, match="stopped here"):
        stage.consolidate(
            own_copy.paths,
            ModelFolder(own_copy.model),
            [0, 1],
            config=compose_config(TASK, []),
            sweep_boxes=True,
        )
    assert sorted(seen) == sorted(TRAINING)
    assert seen["case_0"] == seen["case_1"]
    assert len(set(seen.values())) == len(seen) - 1
