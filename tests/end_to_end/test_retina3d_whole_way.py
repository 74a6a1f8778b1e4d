"""The system for all other tasks, ``retina3d``: every command on two modalities and two classes without CTV."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_place import SPACING, TASK, Workplace, tiny_case

from nndet_psma import Predictor
from nndet_psma.artifacts.plan_file import read_plan
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.cli import (
    consolidate,
    eval,
    export_model,
    import_model,
    plan,
    predict,
    prep,
    report,
    submit,
    train,
)
from nndet_psma.core.atomic import read_json
from nndet_psma.dataset.images.images import write_volume

MODEL = "RetinaNet3D_RETINA3D"
CASES = ["case_0", "case_2", "case_3", "case_4", "test_0"]
PREP = [
    "plan_cfg.target=cpu", "plan_cfg.num_folds=2", "plan_cfg.iterations_factor=0.02", "plan_cfg.patch_size=[8,32,32]",
]  # fmt: skip
TRAIN = ["exp.fold=all", "trainer_cfg.num_workers=0", "trainer_cfg.pictures_every=4"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Trained, consolidated, predicted and evaluated; module-wide, read only."""
    root = tmp_path_factory.mktemp("retina3d")
    place = Workplace(root / "data", root / "models")
    place.models.mkdir(parents=True)
    for number, name in enumerate(CASES):
        ct, _, mask = tiny_case(name)
        pet = (np.abs(ct) * 0.001 * (number + 1)).astype(np.float32)
        split = "Ts" if name.startswith("test") else "Tr"
        grid = Geometry(mask.shape, SPACING, origin=(-47.0, -39.0, 300.0))
        write_volume(place.paths.images(split) / f"{name}_0000.nii.gz", ct, grid)
        write_volume(place.paths.images(split) / f"{name}_0001.nii.gz", pet, grid)
        write_volume(place.paths.labels(split) / f"{name}.nii.gz", mask, grid)
        classes = {str(k): (k + number) % 2 for k in np.unique(mask)[1:].tolist()}
        (place.paths.labels(split) / f"{name}.json").write_text(json.dumps({"instances": classes}))
    content = {
        "task": TASK, "dim": 3, "target_class": 0, "test_labels": True,
        "labels": {"0": "node", "1": "bone"}, "modalities": {"0": "CT", "1": "PET"},
    }  # fmt: skip
    (place.paths.root / "dataset.json").write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        place.enter(patch)
        assert prep.main(["900", "-np", "1", "-npp", "1", "--full_check", "-o", *PREP]) == 0
        assert train.main(["900", "--sweep", "-o", *TRAIN]) == 0
        assert consolidate.main(["900", MODEL, "--sweep_boxes"]) == 0
        assert predict.main(["900", MODEL, "-ntta", "1"]) == 0
        assert eval.main(["900", MODEL, "-1", "--test", "--boxes", "--case", "--analyze_boxes"]) == 0
    return place


@pytest.fixture
def entered(place, monkeypatch):
    place.enter(monkeypatch)
    return place


def _model(place):
    return place.models / TASK / MODEL


def test_the_data_set_chose_it(entered):
    made = read_plan(entered.paths.plan("RETINA3D"))
    assert (made.planner, made.trainer, made.detector) == ("Retina3DPlanner", "RetinaNet3D", None)
    assert made.detector3d.patch_size == (8, 32, 32)
    assert [scaling.name for scaling in made.scalings] == ["PET"]
    assert [stage.region for stage in made.stages] == ["body"]
    assert made.channels(made.stages[0]) == 2


def test_tuned_for_mean_average_precision(entered):
    sweep = read_json(_model(entered) / "consolidated" / "sweep.json")
    assert (sweep["criterion"], sweep["judged"]) == ("map", "lesions")
    assert sweep["nested"] is not None


def test_boxes_lie_in_the_image_and_come_with_their_slices(entered):
    found = Prediction.read(_model(entered) / "consolidated/test_predictions/test_0_boxes.json")
    assert found.candidates
    shape = np.array(found.image.shape)
    for lesion in found.candidates:
        box = np.array(lesion.box)
        assert (box[:3] >= 0).all()
        assert (box[3:] <= shape).all()
        inside = [z for z in range(shape[0]) if box[0] <= z + 0.5 < box[3]]
        assert [part.box[0] for part in lesion.slices] == (inside or [np.floor((box[0] + box[3]) / 2)])
    assert {lesion.label for lesion in found.candidates} <= {0, 1}


def test_report_plan_and_submissions(entered, capsys, tmp_path):
    assert report.main(["900", MODEL]) == 0
    page = (_model(entered) / "report.html").read_text()
    assert "retina3d" in page
    assert plan.main(["show", "900"]) == 0
    assert "detector3d.patch_size" in capsys.readouterr().out
    for form in ("luna-csv", "coco-json", "detection-map"):
        assert submit.main(["900", MODEL, "--format", form, "-o", str(tmp_path / form)]) == 0
        assert any((tmp_path / form).rglob("*") if (tmp_path / form).is_dir() else [tmp_path / form])


def test_export_import_and_python(entered, tmp_path, monkeypatch):
    zipped = tmp_path / "model.zip"
    assert export_model.main(["900", MODEL, "-o", str(zipped)]) == 0
    expected = Prediction.read(_model(entered) / "consolidated/test_predictions/test_0_boxes.json")
    predictor = Predictor.from_folder(zipped, device="cpu", tta=True)
    images = {
        name: entered.paths.images("Ts") / f"test_0_000{i}.nii.gz" for i, name in enumerate(("CT", "PET"))
    }
    lesions = predictor.predict(images, score_threshold=0.0)
    assert [lesion.box for lesion in lesions] == [lesion.box for lesion in expected.candidates]
    monkeypatch.setenv("det_models", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    assert import_model.main([str(zipped)]) == 0
    assert (tmp_path / "elsewhere" / TASK / MODEL / "consolidated/fold1/retina3d/model.safetensors").is_file()


def test_again_changes_nothing(entered, capsys):
    files = sorted(_model(entered).rglob("*"))
    before = {file: file.stat().st_mtime_ns for file in files if file.suffix in (".safetensors", ".npz")}
    assert train.main(["900", "-o", *TRAIN]) == 0
    assert predict.main(["900", MODEL, "-ntta", "1"]) == 0
    assert "finished before" in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_another_systems_plan_is_refused(entered, capsys):
    assert train.main(["900", "-o", "train=psma25d", "plan=RETINA3D"]) == 2
    assert "RETINA3D.json" in capsys.readouterr().err
