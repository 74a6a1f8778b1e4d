"""The tiny task from nndet_prep to a structured report with segmentation by nnU-Net, command by command."""

from __future__ import annotations

import json
from io import StringIO

import numpy as np
import pytest
import torch
import yaml
from tiny_place import TASK, TEST

from nndet_psma import Predictor
from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.cli import (
    consolidate,
    eval,
    export_model,
    import_model,
    measure,
    plan,
    predict,
    prep,
    report,
    submit,
    sweep,
    train,
    train_all,
)
from nndet_psma.core.hashing import hash_json
from nndet_psma.dataset.images.images import read_volume
from nndet_psma.systems.nodeseg.nnunet.curves import training_curve
from nndet_psma.systems.nodeseg.nnunet.model import SegmentationModel
from nndet_psma.systems.nodeseg.nnunet.network_files import read_network_files
from nndet_psma.systems.nodeseg.nnunet.weights import read_checkpoint
from nndet_psma.systems.nodeseg.plan import NodeSegPlan
from nndet_psma.systems.nodeseg.settings import NodeSegSettings
from nndet_psma.systems.nodeseg.system import STEP, NodeSeg

pytestmark = pytest.mark.slow

MODEL = "nnUNetTrainerNodeSeg_NodeSeg"
PREP = [
    "train=nodeseg",
    "plan_cfg.target=cpu",
    "plan_cfg.num_folds=2",
    "plan_cfg.epochs=2",
    "plan_cfg.iterations=3",
    "plan_cfg.validation_iterations=1",
    "plan_cfg.augmentation=none",
    "plan_cfg.mirror=false",
]
TRAIN = ["train=nodeseg", "exp.fold=all", "trainer_cfg.validate=false"]


@pytest.fixture(scope="module")
def place(raw_place, tmp_path_factory):
    """After every command up to evaluation; read only."""
    place = raw_place.copy(tmp_path_factory.mktemp("nodeseg"))
    with pytest.MonkeyPatch.context() as patch:
        place.enter(patch)
        place.models.mkdir(exist_ok=True)
        assert prep.main(["900", "-np", "1", "-o", *PREP, "plan_cfg.patch_size=[8,16,16]"]) == 0
        # another patch: nnU-Net writes the cases anew, in other chunks
        assert prep.main(["900", "-np", "1", "-o", *PREP, "prep.overwrite=true"]) == 0
        assert train.main(["900", "--sweep", "-o", *TRAIN]) == 0
        assert consolidate.main(["900", MODEL, "--sweep_boxes"]) == 0
        assert predict.main(["900", MODEL]) == 0
        assert eval.main(["900", MODEL, "-1", "--test", "--boxes", "--case", "--analyze_boxes"]) == 0
    return place


@pytest.fixture
def inside(place, monkeypatch):
    place.enter(monkeypatch)
    return place


@pytest.fixture
def model(inside):
    return inside.models / TASK / MODEL


def test_a_plan_with_another_patch_replaced_the_first(inside):
    assert NodeSegPlan.read(inside.paths.plan("NodeSeg")).patch_size != (8, 16, 16)
    folder = inside.paths.preprocessed / "nnunet/preprocessed/Dataset900_Tiny/NodeSeg_3d_fullres"
    assert len(list(folder.glob("case_?.b2nd"))) == 6


def test_every_file_of_a_prediction(model):
    target = model / "consolidated/test_predictions"
    for name in TEST:
        prediction = Prediction.read(target / f"{name}_boxes.json")
        assert prediction.search_region == "ctv"
        segmentation = read_volume(target / f"{name}_seg.nii.gz")
        assert segmentation.geometry.shape == prediction.image.shape
        assert (target / f"{name}_instances.nii.gz").is_file()
    rows = json.loads((target / "predictions.json").read_text())
    assert [row["case_id"] for row in rows["cases"]] == TEST
    assert rows["options"]["num_tta"] == 1


def test_scores_are_those_of_every_model(model):
    scores = json.loads((model / "consolidated/test_results/scores.json").read_text())
    assert scores["num_cases"] == len(TEST)
    assert scores["num_lesions"] == 2  # one in each test case
    assert "AP_IoU_0.10_MaxDet_100" in scores["scores"]
    table = json.loads((model / "consolidated/test_results/ablation.json").read_text())
    assert [row["filters"] for row in table] == [False, True]


def test_thresholds_of_a_fold_can_be_tuned_again(model, capsys):
    assert sweep.main(["900", MODEL, "0"]) == 0
    assert "thresholds: " in capsys.readouterr().out


def test_the_curve_counts_steps(model):
    rows = training_curve(ModelFolder(model), 0, ModelFolder(model).plan(0))
    assert [row["step"] for row in rows] == [3.0, 6.0]  # two epochs of three steps
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert STEP == "nnU-Net"


def test_the_report_knows_nnunet(model, tmp_path):
    file = tmp_path / "report.html"
    assert report.main(["900", MODEL, "--output", str(file), "--max_cases", "1"]) == 0
    page = file.read_text()
    assert "nnU-Net segments the images; voxels that touch are one lesion." in page
    assert "nnU-Net ran this training" in page
    assert "nnU-Net, filters" in page
    assert "Training loss against steps; last values: nnU-Net" in page


@pytest.mark.parametrize(
    "form", ["boxes-json", "lesions-csv", "luna-csv", "detection-map", "label-map", "coco-json"]
)
def test_submissions(inside, tmp_path, form):
    argv = ["900", MODEL, "--format", form, "-o", str(tmp_path / form)]
    assert submit.main(argv) == 0
    index = json.loads((tmp_path / form / "submission.json").read_text())
    assert [case["case_id"] for case in index["cases"]] == TEST


def test_comparison_with_a_detector(inside, trained, model, tmp_path, monkeypatch, capsys):
    """Both systems of one task beside each other; the test cases are the same."""
    import shutil

    other = "MaskRCNN25D_PSMA25D"
    shutil.copytree(trained.model, inside.models / TASK / other, dirs_exist_ok=True)
    assert eval.main(["900", MODEL, "-1", "--test", "--compare", other]) == 0
    assert f"{MODEL} minus" in capsys.readouterr().out.replace("\n", " ")
    found = json.loads((model / f"consolidated/test_results/comparison_{other}.json").read_text())
    assert (found["first"], found["second"]) == (MODEL, other)


def test_instances_are_measured(inside, model, tmp_path):
    source = model / "consolidated/test_predictions"
    masks = [str(source / f"{name}_instances.nii.gz") for name in TEST]
    images = str(inside.paths.images("Ts"))
    assert measure.main([*masks, "-o", str(tmp_path), "--nodes", "instances", "--images", images]) == 0
    for name in TEST:
        table = json.loads((source / f"{name}_instances.json").read_text())["instances"]
        found = json.loads((tmp_path / f"{name}_nodes.json").read_text())
        assert len(found["nodes"]) == len(table)
        assert (tmp_path / f"{name}_nodes.html").is_file()


def test_one_folder_without_a_task_and_without_ctv(inside, tmp_path):
    import shutil

    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(inside.paths.images("Ts") / f"{TEST[0]}_0000.nii.gz", images)
    argv = ["900", MODEL, "-i", str(images), "-o", str(tmp_path / "out"), "--region", "body"]
    assert predict.main(argv) == 0
    assert Prediction.read(tmp_path / f"out/{TEST[0]}_boxes.json").search_region == "body"


def test_plan_show(inside, capsys):
    assert plan.main(["show", "900"]) == 0
    assert "training.loss" in capsys.readouterr().out


def test_what_every_training_leaves_behind(model):
    """Logs, configuration and its hash, as of detectors; nnU-Net's lines are in our log, its own is named."""
    for fold in (0, 1):
        folder = model / f"fold{fold}"
        log = (folder / "train.log").read_text()
        assert f"fold {fold} of {MODEL}, plan {NodeSegPlan.read(folder / 'plan.json').content_hash()}" in log
        assert "nnU-Net: Epoch 0" in log
        assert "nnU-Net: train_loss" in log
        place = log.split("training_log_*.txt in ")[1].splitlines()[0]
        assert len(list((model / place).glob("training_log_*.txt"))) == 1
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert (config["trainer_cfg"]["validate"], config["module"]) == (False, "nnUNetTrainerNodeSeg")
        environment = json.loads((folder / "environment.json").read_text())
        assert environment["config"] == hash_json(config)
        assert environment["packages"]["nnunetv2"] != "not installed"


def test_the_data_are_drawn(inside):
    pictures = inside.paths.analysis / "NodeSeg"
    assert {file.suffix for file in pictures.iterdir()} == {".png"}


class _Terminal(StringIO):
    def isatty(self):
        return True


def test_somebody_at_a_terminal_sees_how_far_it_is(inside, monkeypatch, tmp_path):
    terminal = _Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert predict.main(["900", MODEL, "-d", str(tmp_path)]) == 0
    assert "predict" in terminal.getvalue()
    assert "2/2" in terminal.getvalue()
    terminal.truncate(0)
    assert sweep.main(["900", MODEL, "0"]) == 0
    assert "fold 0: validation cases" in terminal.getvalue()


def test_thresholds_can_be_tuned_without_weights(inside, tmp_path, monkeypatch):
    """``--no_model``: a consolidated model for evaluation, which the folds' predictions are enough for."""
    import shutil

    shutil.copytree(inside.models, tmp_path / "models")
    monkeypatch.setenv("det_models", str(tmp_path / "models"))
    target = tmp_path / "models" / TASK / MODEL / "consolidated"
    before = json.loads((target / "plan_inference.json").read_text())
    assert consolidate.main(["900", MODEL, "--no_model", "--sweep_boxes"]) == 0
    assert not list(target.rglob("*.pth"))
    assert json.loads((target / "plan_inference.json").read_text())["settings"] == before["settings"]


def test_nnunets_files_are_those_that_are_let_in(model):
    """What nnU-Net has planned in earnest passes the check word for word."""
    plan = NodeSegPlan.read(model / "fold0/plan.json")
    folder = SegmentationModel(ModelFolder(model)).trained(plan, 0)
    written = json.loads((folder / "plans.json").read_text())
    assert len(written["configurations"]) > 1
    kept = {plan.configuration: written["configurations"][plan.configuration]}
    assert read_network_files(folder, plan).plans == {**written, "configurations": kept}


@pytest.mark.parametrize("fold", [None, 1])
def test_a_trained_model_is_passed_on(inside, model, tmp_path, monkeypatch, fold):
    """The consolidated model, and a fold by itself with thresholds of its own; both give what they give here."""
    folds = [] if fold is None else ["--folds", str(fold)]
    assert export_model.main(["900", MODEL, "-o", str(tmp_path / "model.zip"), *folds]) == 0
    monkeypatch.setenv("det_models", str(tmp_path / "models"))
    assert import_model.main([str(tmp_path / "model.zip")]) == 0
    assert predict.main(["900", MODEL, "-d", str(tmp_path / "out")]) == 0
    source = Predictor.from_folder(model if fold is None else model / f"fold{fold}", "cpu")
    for name in TEST:
        there = Prediction.read(tmp_path / "out" / f"{name}_boxes.json")
        files = [inside.paths.images("Ts") / f"{name}_{index:04d}.nii.gz" for index in (0, 1)]
        here = source.predict_masks(*files, case_id=name)
        assert there.candidates == here.result.candidates
        assert there.lesions == here.result.lesions
        written = read_volume(tmp_path / "out" / f"{name}_instances.nii.gz", canonical=False)
        np.testing.assert_array_equal(written.array, here.instances)


def test_train_all_trains_the_same(inside, model, tmp_path, monkeypatch, capsys):
    """One job per fold, then sweeps and the consolidation; weights and thresholds are those of the single commands."""
    pytest.importorskip("submitit")
    models = tmp_path / "models"
    models.mkdir()
    monkeypatch.setenv("det_models", str(models))
    options = ["-o", "train=nodeseg", "trainer_cfg.validate=false"]
    wish = ["900", "--executor", "debug", "--sweep", "--consolidate"]
    assert train_all.main([*wish, "--dry-run", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "fold0",
        f"    nndet_train {TASK} -o exp.fold=0 train=nodeseg trainer_cfg.validate=false",
    ]
    jobs = ["fold0", "sweep0 after fold0", "fold1", "sweep1 after fold1", "consolidate after sweep0, sweep1"]
    assert lines[:-1:2] == jobs
    assert lines[-1] == "5 of 5 jobs to run, at most 1 at once"
    assert not any(models.iterdir())
    assert train_all.main([*wish, *options]) == 0
    other = models / TASK / MODEL
    for fold in (0, 1):
        assert _weights(other, fold).keys() == _weights(model, fold).keys()
        for name, tensor in _weights(model, fold).items():
            assert torch.equal(_weights(other, fold)[name], tensor)
        tuned = [json.loads((m / f"fold{fold}/plan_inference.json").read_text()) for m in (other, model)]
        assert tuned[0]["settings"] == tuned[1]["settings"]
    capsys.readouterr()
    assert train_all.main([*wish, "--status", *options]) == 0
    assert capsys.readouterr().out.count("done") >= 5
    assert train_all.main([*wish, "--dry-run", *options]) == 0
    assert "0 of 5 jobs to run" in capsys.readouterr().out
    _checkpoint(other, 1).unlink()
    assert train_all.main([*wish, "--dry-run", *options]) == 0
    assert "3 of 5 jobs to run" in capsys.readouterr().out  # the fold, its sweep, the consolidation


def _checkpoint(model, fold):
    plan = NodeSegPlan.read(model / f"fold{fold}/plan.json")
    [step] = NodeSeg().steps(plan, NodeSegSettings(), fold)
    return model / step.result


def _weights(model, fold):
    return read_checkpoint(_checkpoint(model, fold))["network_weights"]
