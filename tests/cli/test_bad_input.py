"""Folders, options and orders of commands that are wrong: one line naming the remedy, exit code 2."""

from __future__ import annotations

import shutil

import pytest
from failing import fails
from tiny_place import MODEL, TASK

from nndet_psma.cli import consolidate, eval, plan, predict, prep, sweep, train

PREP = ["900", "-np", "1", "-npp", "1", "-o", "plan_cfg.target=cpu"]


@pytest.fixture
def raw(raw_place, tmp_path, monkeypatch):
    """A raw task of the test's own."""
    place = raw_place.copy(tmp_path)
    place.enter(monkeypatch)
    return place.paths


@pytest.fixture
def models(tiny_task, trained, tmp_path, monkeypatch):
    """The prepared task with copied models; the data are read only."""
    shutil.copytree(trained.models, tmp_path / "models")
    monkeypatch.setenv("det_data", str(tiny_task.data))
    monkeypatch.setenv("det_models", str(tmp_path / "models"))
    return tmp_path / "models" / TASK / MODEL


@pytest.mark.parametrize("main", [prep.main, train.main])
def test_det_data_unset(in_task, monkeypatch, capsys, main):
    monkeypatch.delenv("det_data")
    fails(capsys, main, ["900"], "det_data is not set", "Say export det_data=")


def test_det_data_names_no_folder(in_task, monkeypatch, capsys):
    monkeypatch.setenv("det_data", "/nowhere/at/all")
    fails(capsys, train.main, ["900"], "/nowhere/at/all: det_data names no folder", "Create it")


def test_det_models_unset(in_task, monkeypatch, capsys):
    monkeypatch.delenv("det_models")
    fails(capsys, train.main, ["900"], "det_models is not set", "Say export det_models=")


@pytest.mark.parametrize("task", ["901", "Nothing", "Task900_Other"])
@pytest.mark.parametrize("main", [prep.main, train.main])
def test_unknown_task(in_task, capsys, main, task):
    fails(capsys, main, [task], f"no task '{task}'", f"found {TASK}")


@pytest.mark.parametrize(
    ("main", "rest"),
    [(predict.main, []), (eval.main, ["-1"]), (sweep.main, ["0"]), (consolidate.main, [])],
    ids=["predict", "eval", "sweep", "consolidate"],
)
def test_unknown_model(models, capsys, main, rest):
    fails(capsys, main, ["900", "Typo_PSMA25D", *rest], "unknown model 'Typo_PSMA25D'", f"one of: {MODEL}")


def test_task_without_models(in_task, capsys):
    fails(capsys, predict.main, ["900", MODEL], "no models of task '900'", "expected one of: none")


def test_no_plan_yet(raw, capsys):
    fails(capsys, train.main, ["900"], "PSMA25D.json", "no plan 'PSMA25D'", "Run nndet_prep")
    fails(capsys, plan.main, ["show", "900"], "PSMA25D.json", "no plan 'PSMA25D'", "Run nndet_prep")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trainer_cfg.iterationz=3", "Could not override 'trainer_cfg.iterationz'"),
        ("+trainer_cfg.iterationz=3", "trainer_cfg.iterationz: unknown key"),
        ("trainer_cfg.iterations=many", "trainer_cfg.iterations: expected int, found 'many'"),
        ("nonsense", "Error parsing override 'nonsense'"),
        ("host=nnunett", "unknown host 'nnunett'; expected one of embedded, nnunet, nndet"),
        ("host=nnunet", "MaskRCNN25D trains in host 'embedded' only; found host 'nnunet'"),
        ("module=Mask", "unknown trainer (module) 'Mask'; expected one of MaskRCNN25D"),
        ("exp.fold=7", "fold 7 does not exist; expected 0 to 1 or all"),
        ("exp.fold=-1", "fold -1 does not exist"),
        ("exp.fold=every", "exp.fold: expected int or one of ['all'], found 'every'"),
        ("exp.fold=true", "exp.fold: expected int or one of ['all'], found True"),
        ("exp.voter=hu_1_2", "no stage 'hu_1_2'; stages are wsi, "),
        ("train.mode=again", "train.mode: expected one of ['auto', 'resume', 'overwrite'], found 'again'"),
        ("train.mode=resume", "there is nothing to resume"),
        ("plan=OTHER", "OTHER.json"),
        ("+plan_overwrites.detectorr.scale=2", "detectorr: unknown key"),
        ("+plan_overwrites.detector.scale=big", "detector.scale: expected float, found 'big'"),
        ("+plan_overwrites.detector.backbone=vgg16", "unknown backbone 'vgg16'"),
        ("+plan_overwrites.detector.weights=/no/w.pth", "/no/w.pth: weights file does not exist"),
        ("+plan_overwrites.spacing=[1,1,1]", "plan_overwrites change how images are preprocessed"),
        ("trainer_cfg.precision=fp8", "precision must be no, fp16 or bf16"),
    ],
)
def test_wrong_training_option(in_task, capsys, override, expected):
    fails(capsys, train.main, ["900", "-o", override], expected)
    assert not list(in_task.models.rglob("model.safetensors"))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("planner=Foo", "unknown planner 'Foo'; expected one of NodeSegPlanner, PSMA25DPlanner"),
        ("plan_cfg.num_folds=1", "num_folds must be at least 2"),
        ("plan_cfg.target=tpu", "plan_cfg.target: expected one of"),
    ],
)
def test_wrong_planning_option(raw, capsys, override, expected):
    fails(capsys, prep.main, [*PREP, override], expected)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("inference_kwargs.device=gpu", "unknown device 'gpu'; expected auto, cpu, cuda or cuda:N"),
        ("inference_kwargs.device=cuda:88", "device cuda:88 asked for"),
        ("inference_kwargs.batch_size=-1", "batch_size must be null or at least 1, found -1"),
    ],
)
def test_wrong_inference_option(models, capsys, override, expected):
    fails(capsys, predict.main, ["900", MODEL, "-o", override], expected)
    fails(capsys, sweep.main, ["900", MODEL, "0", "-o", override], expected)


def test_wrong_criterion(models, capsys):
    fails(
        capsys, sweep.main, ["900", MODEL, "0", "-o", "sweep.criterion=f2"],
        "unknown sweep criterion 'f2'", "sensitivity@precision",
    )  # fmt: skip


def test_sweep_of_a_fold_that_is_not_trained(models, capsys):
    fails(capsys, sweep.main, ["900", MODEL, "4"], "fold4: holds no trained model", "Run nndet_train first")


def test_consolidate_a_fold_that_is_not_trained(models, capsys):
    fails(capsys, consolidate.main, ["900", MODEL, "--folds", "0", "5"], "fold 5 is not trained", "--folds")
    fails(capsys, consolidate.main, ["900", MODEL, "--num_folds", "3"], "fold 2 is not trained")


def test_consolidate_a_half_trained_fold(models, capsys):
    weights = next((models / "fold1").glob("hu_*/model.safetensors"))
    weights.unlink()
    fails(capsys, consolidate.main, ["900", MODEL], str(weights), "of fold 1 is not trained", "exp.fold=1")
    assert (models / "consolidated/test_predictions").is_dir()  # the old model stays whole


def test_consolidate_folds_of_different_plans(models, capsys):
    file = models / "fold1/plan.json"
    file.write_text(file.read_text().replace('"seed": 12345', '"seed": 1'))
    fails(capsys, consolidate.main, ["900", MODEL], "trained with different plans", "fold 0: ", "one plan")


def test_predict_before_consolidate(models, capsys):
    shutil.rmtree(models / "consolidated")
    fails(
        capsys,
        predict.main,
        ["900", MODEL],
        "consolidated: is not consolidated",
        "Run nndet_consolidate first",
    )


def test_predict_a_fold_before_its_sweep(models, capsys):
    (models / "fold0/plan_inference.json").unlink()
    fails(capsys, predict.main, ["900", MODEL, "-f", "0"], "thresholds are not tuned yet", "Run nndet_sweep")


def test_eval_before_predict(models, capsys):
    shutil.rmtree(models / "consolidated/test_predictions")
    fails(
        capsys, eval.main, ["900", MODEL, "-1", "--test"], "holds no predictions", "Run nndet_predict first"
    )
    shutil.rmtree(models / "consolidated/val_predictions")
    fails(capsys, eval.main, ["900", MODEL, "-1"], "holds no predictions", "--sweep_boxes first")


def test_eval_of_an_incomplete_prediction(models, capsys):
    (models / "consolidated/test_predictions/test_1_boxes.json").unlink()
    fails(capsys, eval.main, ["900", MODEL, "-1", "--test"], "test case test_1 is not predicted")


def test_damaged_model_files(models, capsys):
    weights = next((models / "consolidated/fold1").glob("hu_*/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    fails(capsys, predict.main, ["900", MODEL], str(weights), "weights cannot be read")
    weights.unlink()
    fails(capsys, predict.main, ["900", MODEL], str(weights), "weights are missing", "Run nndet_train")
