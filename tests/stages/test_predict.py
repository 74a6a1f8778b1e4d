"""Stage predict: any folder of images, what is kept, what is searched without a CTV."""

from __future__ import annotations

import pytest
from tiny_place import GRID, TASK, tiny_case

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images import write_volume
from nndet_psma.inference.model_folder import ModelFolder
from nndet_psma.stages.predict import (
    PredictJob,
    description_from_plan,
    folder_cases,
    predict_cases,
    without_ctv_modality,
)


@pytest.fixture
def images(tmp_path):
    ct, ctv, _ = tiny_case("test_0")
    for name in ("a", "b"):
        write_volume(tmp_path / f"in/{name}_0000.nii.gz", ct, GRID)
        write_volume(tmp_path / f"in/{name}_0001.nii.gz", ctv, GRID)
    return tmp_path / "in"


def _job(trained, images, target, **changes):
    plan = ModelFolder(trained.model).plan(-1)
    whole = changes.get("whole_slices", False)
    values = {
        "folder": ModelFolder(trained.model),
        "fold": -1,
        "cases": folder_cases(images, plan, without_ctv=whole),
        "description": description_from_plan(plan),
        "target": target,
        "whole_slices": False,
        "tta": False,
        "device": "cpu",
        "batch_size": None,
    }
    return PredictJob(**{**values, **changes})


def test_description_comes_from_the_model(trained):
    description = description_from_plan(trained.plan)
    assert (description.task, description.modalities, description.labels) == (
        TASK, {0: "CT", 1: "CTV"}, {0: "node"},
    )  # fmt: skip
    assert description.ctv_modality == 1
    assert without_ctv_modality(description).modalities == {0: "CT"}


def test_ctv_must_be_the_last_modality_to_be_left_out(trained):
    from dataclasses import replace

    description = replace(description_from_plan(trained.plan), modalities={0: "CTV", 1: "CT"})
    with pytest.raises(UserError, match="the CTV is not the last modality"):
        without_ctv_modality(description)


def test_same_voxels_same_boxes(trained, images, tmp_path):
    said = []
    first, second = predict_cases(_job(trained, images, tmp_path / "out"), said.append)
    assert first.candidates == second.candidates
    assert [line.split(":")[0] for line in said] == ["a", "b"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_boxes.json", "b_boxes.json", "raw"]


def test_finished_cases_are_kept_and_changed_ones_are_not(trained, images, tmp_path, monkeypatch):
    from nndet_psma.inference.predictor import CasePredictor

    predict_cases(_job(trained, images, tmp_path / "out"), lambda text: None)
    before = (tmp_path / "out/a_boxes.json").read_bytes()
    asked = []
    real = CasePredictor.predict

    def watch(self, case, *rest):
        asked.append(case.case_id)
        return real(self, case, *rest)

    monkeypatch.setattr(CasePredictor, "predict", watch)
    predict_cases(_job(trained, images, tmp_path / "out"), lambda text: None)
    assert asked == []
    assert (tmp_path / "out/a_boxes.json").read_bytes() == before
    write_volume(images / "b_0000.nii.gz", tiny_case("test_1")[0], GRID)
    (tmp_path / "out/raw/a.npz").write_bytes(b"damaged")
    predict_cases(_job(trained, images, tmp_path / "out"), lambda text: None)
    assert asked == ["a", "b"]
    assert (tmp_path / "out/a_boxes.json").read_bytes() == before
    predict_cases(_job(trained, images, tmp_path / "out", tta=True), lambda text: None)
    assert asked == ["a", "b", "a", "b"]


def test_without_ctv(trained, images, tmp_path):
    for file in images.glob("*_0001*"):
        file.unlink()
    (images / "b_0000.nii.gz").rename(images / "plain.nii.gz")  # a single modality needs no number
    predictions = predict_cases(
        _job(trained, images, tmp_path / "out", whole_slices=True,
             description=without_ctv_modality(description_from_plan(trained.plan))),
        lambda text: None,
    )  # fmt: skip
    assert [p.case_id for p in predictions] == ["a", "plain"]
    assert {p.search_region for p in predictions} == {"body"}
