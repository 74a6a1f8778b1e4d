"""The commands in the order a user types them, on the tiny task; the session's ``trained`` place is their result."""

from __future__ import annotations

import json

import pytest
from tiny_place import (
    GRID,
    MODEL,
    PREP_OPTIONS,
    TEST,
    TRAIN_OPTIONS,
    TRAINING,
    snapshot,
    tiny_case,
)

from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.cli import consolidate, eval, predict, prep, sweep, train
from nndet_psma.dataset.images.images import write_volume


def test_files_of_every_stage(trained):
    paths, model = trained.paths, trained.model
    assert paths.fingerprint.is_file()
    assert sorted(p.name for p in trained.store.iterdir()) == TRAINING
    for fold in ("fold0", "fold1"):
        stages = {path.parent.name for path in (model / fold).glob("*/model.safetensors")}
        assert stages == {stage.name for stage in trained.plan.stages}
        for name in ("plan.json", "config.yaml", "environment.json", "sweep.json", "plan_inference.json"):
            assert (model / fold / name).is_file(), name
        assert (model / fold / "wsi/metrics.csv").read_text().startswith("step,learning_rate,loss")
    assert {p.name for p in (model / "consolidated").iterdir()} >= {
        "fold0", "fold1", "plan.json", "plan_inference.json", "sweep.json", "val_predictions", "test_predictions",
        "test_results",
    }  # fmt: skip


def test_predictions_are_plain_json(trained):
    folder = trained.model / "consolidated/test_predictions"
    assert sorted(p.name for p in folder.glob("*_boxes.json")) == [f"{case}_boxes.json" for case in TEST]
    content = json.loads((folder / "test_0_boxes.json").read_text())
    assert content["schema"] == "nndet_psma.prediction"
    assert content["search_region"] == "ctv"
    assert content["image"]["shape"] == [10, 40, 48]
    candidate = content["candidates"][0]
    assert set(candidate) == {"score", "label", "name", "box", "centre_mm", "size_mm", "slices"}
    assert candidate["name"] == "node"
    z0, y0, x0, z1, y1, x1 = candidate["box"]
    assert 0 <= z0 < z1 <= 10
    assert 0 <= y0 < y1 <= 40
    assert 0 <= x0 < x1 <= 48
    index = json.loads((folder / "predictions.json").read_text())
    assert [case["case_id"] for case in index["cases"]] == TEST
    assert "settings tried on 6 validation cases of folds [0, 1]" in index["thresholds_source"]


def test_nothing_is_left_over(trained):
    leftovers = [p for p in trained.data.parent.rglob("*") if p.name.startswith((".tmp-", ".old-"))]
    assert leftovers == []


def test_every_command_again_changes_nothing(own_copy):
    before, stamps = snapshot(own_copy.data.parent), _stamps(own_copy)
    assert prep.main(["900", "-np", "1", "-npp", "1", "--full_check", "-o", *PREP_OPTIONS]) == 0
    assert train.main(["900", "--sweep", "-o", "exp.fold=all", *TRAIN_OPTIONS]) == 0
    assert sweep.main(["900", MODEL, "1"]) == 0
    assert consolidate.main(["900", MODEL, "--sweep_boxes"]) == 0
    assert predict.main(["900", MODEL, "--fold", "-1"]) == 0
    assert eval.main(["900", MODEL, "-1", "--test"]) == 0
    after = snapshot(own_copy.data.parent)
    assert set(after) == set(before)
    assert [name for name in before if after[name] != before[name]] == []
    assert _stamps(own_copy) == stamps


def _stamps(place):
    """Times of what is expensive: arrays, weights, raw predictions; tuning takes a second and is done again."""
    files = [p for p in place.data.parent.rglob("*") if p.suffix in (".npy", ".safetensors", ".npz")]
    files = [p for p in files if p.name != "sweep_table.npz"]
    assert len(files) > 30
    return {str(file): file.stat().st_mtime_ns for file in files}


@pytest.fixture
def hospital(trained, tmp_path, monkeypatch):
    """Images of a new patient and the models, but no task: det_data is not even set."""
    monkeypatch.setenv("det_models", str(trained.models))
    monkeypatch.delenv("det_data", raising=False)
    ct, ctv, _ = tiny_case("test_0")
    flipped = Geometry(
        GRID.shape, GRID.spacing, (GRID.origin[0], GRID.origin[1] + 39 * 2, GRID.origin[2]),
        (1, 0, 0, 0, -1, 0, 0, 0, 1),
    )  # fmt: skip
    write_volume(tmp_path / "in/straight_0000.nii.gz", ct, GRID)
    write_volume(tmp_path / "in/straight_0001.nii.gz", ctv, GRID)
    write_volume(tmp_path / "in/flipped_0000.nii.gz", ct[:, ::-1], flipped)
    write_volume(tmp_path / "in/flipped_0001.nii.gz", ctv[:, ::-1], flipped)
    return tmp_path


def test_any_folder_without_a_task(hospital, trained):
    """The trained model finds the same in a flipped copy, and in the same patient as a test case."""
    argv = [
        "Tiny",
        MODEL,
        "-i",
        str(hospital / "in"),
        "-o",
        str(hospital / "out"),
        "inference_kwargs.device=cpu",
    ]
    assert predict.main(argv) == 0
    straight = Prediction.read(hospital / "out/straight_boxes.json")
    flipped = Prediction.read(hospital / "out/flipped_boxes.json")
    test_case = Prediction.read(trained.model / "consolidated/test_predictions/test_0_boxes.json")
    assert straight.candidates == test_case.candidates
    assert len(straight.candidates) == len(flipped.candidates) > 0
    for one, other in zip(straight.candidates, flipped.candidates, strict=True):
        assert other.centre_mm == pytest.approx(one.centre_mm, abs=1e-2)
        assert other.score == pytest.approx(one.score, abs=1e-6)
        z0, y0, x0, z1, y1, x1 = one.box
        assert other.box == pytest.approx((z0, 40 - y1, x0, z1, 40 - y0, x1), abs=1e-2)
    before = snapshot(hospital / "out")
    assert predict.main(argv) == 0
    assert snapshot(hospital / "out") == before


def test_without_ctv(hospital, capsys):
    """With or without CTV files in the folder, --region body searches whole slices."""
    argv = ["900", MODEL, "-i", str(hospital / "in"), "--region", "body"]
    for name in ("straight", "flipped"):
        (hospital / f"in/{name}_0001.nii.gz").unlink()
    assert predict.main([*argv, "-d", str(hospital / "out")]) == 0
    assert "searches whole slices" in capsys.readouterr().out
    prediction = Prediction.read(hospital / "out/straight_boxes.json")
    assert prediction.search_region == "body"
    assert prediction.examined[0] == 0
    assert prediction.examined[3] == 10


def test_without_using_the_ctv_that_is_there(hospital):
    argv = ["900", MODEL, "-i", str(hospital / "in"), "--region", "body", "-o", str(hospital / "out")]
    assert predict.main(argv) == 0
    assert Prediction.read(hospital / "out/straight_boxes.json").search_region == "body"


def test_one_fold_and_mirror_images(hospital):
    argv = ["900", MODEL, "-f", "1", "-ntta", "1", "-i", str(hospital / "in"), "-o", str(hospital / "out")]
    assert predict.main(argv) == 0
    index = json.loads((hospital / "out/predictions.json").read_text())
    assert index["options"] == {"region": "ctv", "num_tta": 1}
    assert "of folds [1]" in index["thresholds_source"]
