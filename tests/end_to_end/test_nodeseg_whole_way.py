"""The tiny task from nndet_prep to a structured report with segmentation by nnU-Net, command by command."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_place import TASK, TEST

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.cli import consolidate, eval, measure, plan, predict, prep, report, submit, sweep, train
from nndet_psma.dataset.images.images import read_volume
from nndet_psma.systems.nodeseg.nnunet.curves import training_curve
from nndet_psma.systems.nodeseg.plan import NodeSegPlan
from nndet_psma.systems.nodeseg.system import STEP

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
    assert "nothing is known of it before the first epoch" in page
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
