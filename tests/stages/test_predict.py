"""Stage predict: any folder of images, what is kept, what is searched without a CTV."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_place import GRID, TASK, snapshot, tiny_case

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import write_volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.inference.input_cases import (
    description_from_plan,
    input_cases,
    part_of,
    without_ctv_modality,
)
from nndet_psma.stages.predict import PredictJob, predict_cases, predict_job, write_index
from nndet_psma.systems.system import OpenOptions


@pytest.fixture
def images(tmp_path):
    ct, ctv, _ = tiny_case("test_0")
    for name in ("a", "b"):
        write_volume(tmp_path / f"in/{name}_0000.nii.gz", ct, GRID)
        write_volume(tmp_path / f"in/{name}_0001.nii.gz", ctv, GRID)
    return tmp_path / "in"


def folder_cases(path, plan, *, without_ctv):
    return input_cases(path, description_from_plan(plan), without_ctv=without_ctv)


def _job(trained, images, target, **changes):
    plan = ModelFolder(trained.model).plan(-1)
    whole = changes.pop("without_ctv", False)
    values = {
        "folder": ModelFolder(trained.model),
        "fold": -1,
        "cases": folder_cases(images, plan, without_ctv=whole),
        "description": description_from_plan(plan),
        "target": target,
        "options": OpenOptions("cpu", tta=changes.pop("tta", False), without_ctv=whole),
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
    from nndet_psma.inference.predictor import VoterEnsemble

    predict_cases(_job(trained, images, tmp_path / "out"), lambda text: None)
    before = (tmp_path / "out/a_boxes.json").read_bytes()
    asked = []
    real = VoterEnsemble.predict

    def watch(self, case, *rest):
        asked.append(case.case_id)
        return real(self, case, *rest)

    monkeypatch.setattr(VoterEnsemble, "predict", watch)
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
        _job(trained, images, tmp_path / "out", without_ctv=True,
             description=without_ctv_modality(description_from_plan(trained.plan))),
        lambda text: None,
    )  # fmt: skip
    assert [p.case_id for p in predictions] == ["a", "plain"]
    assert {p.search_region for p in predictions} == {"body"}


def test_a_kept_case_keeps_its_file(trained, images, tmp_path):
    """Not even its time changes; with overwrite it is predicted again, to the same bytes."""
    predict_job(_job(trained, images, tmp_path / "out"), lambda text: None)
    file = tmp_path / "out/a_boxes.json"
    content, time = file.read_bytes(), file.stat().st_mtime_ns
    said = []
    assert predict_job(_job(trained, images, tmp_path / "out"), said.append).kept == ["a", "b"]
    assert file.stat().st_mtime_ns == time
    assert said[0].endswith("candidates (finished before)")
    raw_time = (tmp_path / "out/raw/a.npz").stat().st_mtime_ns
    assert predict_job(_job(trained, images, tmp_path / "out", overwrite=True), said.append).kept == []
    assert file.read_bytes() == content
    assert (tmp_path / "out/raw/a.npz").stat().st_mtime_ns > raw_time


def test_other_thresholds_need_no_detector(own_copy, images, tmp_path, monkeypatch):
    from dataclasses import replace

    from nndet_psma.inference.predictor import VoterEnsemble

    folder = ModelFolder(own_copy.model)
    predict_job(_job(own_copy, images, tmp_path / "out"), lambda text: None)
    before = (tmp_path / "out/a_boxes.json").read_bytes()
    tuned = folder.inference_plan(-1)
    settings = {**tuned.settings, "score_threshold": 0.99}
    replace(tuned, settings=settings).write(folder.fold(-1) / "plan_inference.json")
    monkeypatch.setattr(VoterEnsemble, "predict", lambda *_: pytest.fail("asked again"))
    result = predict_job(_job(own_copy, images, tmp_path / "out"), lambda text: None)
    assert [len(p.lesions) for p in result.results] == [0, 0]
    assert (tmp_path / "out/a_boxes.json").read_bytes() != before


def test_a_bad_case_does_not_stop_the_others(trained, images, tmp_path):
    whole = (images / "a_0000.nii.gz").read_bytes()
    (images / "a_0000.nii.gz").write_bytes(whole[: len(whole) // 2])
    ctv = tiny_case("test_0")[1]
    write_volume(images / "c_0000.nii.gz", tiny_case("test_0")[0], GRID)
    write_volume(images / "c_0001.nii.gz", ctv * 0, GRID)
    said = []
    result = predict_job(_job(trained, images, tmp_path / "out"), said.append)
    assert [p.case_id for p in result.results] == ["b"]
    assert list(result.failed) == ["a", "c"]
    assert "truncated" in str(result.failed["a"])
    assert "the CTV of case c is empty" in str(result.failed["c"])
    assert said[0].startswith("a: FAILED: ")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["b_boxes.json", "raw"]
    with pytest.raises(UserError, match="truncated"):
        predict_cases(_job(trained, images, tmp_path / "out"), said.append)


def test_killed_while_writing(trained, images, tmp_path, monkeypatch):
    """Whatever the moment, every file that is there is whole, and the next run ends with the same bytes."""
    from pathlib import Path

    predict_job(_job(trained, images, tmp_path / "whole"), lambda text: None)
    wanted = snapshot(tmp_path / "whole")
    real = Path.replace
    for moment in range(4):  # raw and boxes of two cases
        left = [moment]

        def kill(self, target, left=left):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return real(self, target)

        target = tmp_path / f"killed{moment}"
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", kill)
            with pytest.raises(KeyboardInterrupt):
                predict_job(_job(trained, images, target), lambda text: None)
        found = snapshot(target)
        assert len(found) == moment
        assert all(wanted[name] == content for name, content in found.items())
        (target / "raw/.tmp-12345678-a.npz").write_bytes(b"left by a power cut")
        predict_job(_job(trained, images, target), lambda text: None)
        assert snapshot(target) == wanted


@settings(max_examples=60)
@given(st.integers(1, 9), st.integers(0, 30))
def test_parts_share_the_cases(num_parts, count):
    cases = [RawCase(f"case_{i}", ()) for i in range(count)]
    parts = [part_of(cases, num_parts, part) for part in range(num_parts)]
    together = sorted((case for part in parts for case in part), key=cases.index)
    assert together == cases
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(("num_parts", "part_id"), [(0, 0), (2, 2), (2, -1), (-1, 0)])
def test_parts_that_do_not_exist(num_parts, part_id):
    with pytest.raises(UserError, match=f"part {part_id} of {num_parts} parts"):
        part_of([], num_parts, part_id)


def test_two_parts_make_one_folder(trained, images, tmp_path):
    for part in (0, 1):
        job = _job(trained, images, tmp_path / "out", num_parts=2, part_id=part)
        result = predict_job(job, lambda text: None)
        assert [p.case_id for p in result.results] == [["a"], ["b"]][part]
        file = write_index(job, result, job.folder.inference_plan(-1), {})
    assert [case["case_id"] for case in json.loads(file.read_text())["cases"]] == ["a", "b"]
    whole = _job(trained, images, tmp_path / "whole")
    write_index(whole, predict_job(whole, lambda text: None), whole.folder.inference_plan(-1), {})
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


def test_one_file_is_one_case(trained, images):
    plan = trained.plan
    for name in ("a_0000.nii.gz", "a_0001.nii.gz"):
        (case,) = folder_cases(images / name, plan, without_ctv=False)
        assert (case.case_id, [p.name for p in case.images]) == ("a", ["a_0000.nii.gz", "a_0001.nii.gz"])
    (images / "a_0000.nii.gz").rename(images / "a.nii.gz")
    (case,) = folder_cases(images / "a.nii.gz", plan, without_ctv=False)
    assert [p.name for p in case.images] == ["a.nii.gz", "a_0001.nii.gz"]
    (images / "a_0001.nii.gz").rename(images / "mask.nii.gz")
    with pytest.raises(UserError, match=r"the CTV of case a is missing.*--region body"):
        folder_cases(images / "a.nii.gz", plan, without_ctv=False)
    (case,) = folder_cases(images / "a.nii.gz", plan, without_ctv=True)
    assert case.images == (images / "a.nii.gz",)
    description = description_from_plan(plan)
    (case,) = input_cases(images / "a.nii.gz", description, without_ctv=False, ctv=images / "mask.nii.gz")
    assert case.images == (images / "a.nii.gz", images / "mask.nii.gz")


def test_one_file_that_is_no_case(trained, images, tmp_path):
    description = description_from_plan(trained.plan)
    (tmp_path / "x.txt").write_text("")
    (images / "a_0007.nii.gz").write_bytes(b"")
    for file, message in (
        (tmp_path / "x.txt", "is no image; expected .nii.gz"),
        (
            images / "a_0007.nii.gz",
            r"a modality that the model does not have; expected _0000 \(CT\), _0001 \(CTV\)",
        ),
        (tmp_path / "none", "folder does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            input_cases(file, description, without_ctv=False)
    with pytest.raises(UserError, match="--ctv names the CTV of one case"):
        input_cases(images, description, without_ctv=False, ctv=images / "a_0001.nii.gz")
    with pytest.raises(UserError, match="file does not exist"):
        input_cases(images / "a_0000.nii.gz", description, without_ctv=False, ctv=images / "none")


def test_a_plain_name_is_not_enough_for_several_images(trained, images):
    from dataclasses import replace

    description = replace(description_from_plan(trained.plan), modalities={0: "CT", 1: "PET"})
    (images / "a_0000.nii.gz").rename(images / "a.nii.gz")
    with pytest.raises(
        UserError, match=r"image without modality number; expected _0000 \(CT\), _0001 \(PET\)"
    ):
        input_cases(images / "a.nii.gz", description, without_ctv=False)


def test_unusual_images_are_told_in_result_index_and_terminal(trained, images, tmp_path):
    """Case a lacks the rescale intercept; b is as it should be."""
    write_volume(images / "a_0000.nii.gz", tiny_case("test_0")[0] + 1100, GRID)
    job = _job(trained, images, tmp_path / "out")
    said = []
    done = predict_job(job, said.append)
    assert [line.split(":")[:2] for line in said] == [
        ["a", f" {done.results[0].told()}"], ["a", " warning"], ["b", f" {done.results[1].told()}"],
    ]  # fmt: skip
    assert "a_0000.nii.gz: this CT starts at 0" in said[1]
    content = json.loads((tmp_path / "out/a_boxes.json").read_text())
    assert [(w["kind"], w["file"]) for w in content["warnings"]] == [
        ("CT without intercept", "a_0000.nii.gz")
    ]
    assert json.loads((tmp_path / "out/b_boxes.json").read_text())["warnings"] == []
    index = json.loads(write_index(job, done, job.folder.inference_plan(-1), {}).read_text())
    assert [case["warnings"] for case in index["cases"]] == [["CT without intercept"], []]
    assert index["compared_with_training"] is True
    again = []
    assert predict_job(job, again.append).kept == ["a", "b"]
    assert again[1] == said[1]


def test_strict_refuses_unusual_images(trained, images, tmp_path):
    write_volume(images / "a_0000.nii.gz", tiny_case("test_0")[0] + 1100, GRID)
    done = predict_job(_job(trained, images, tmp_path / "out", strict=True), lambda text: None)
    assert [result.case_id for result in done.results] == ["b"]
    assert "case a was refused: this CT starts at 0" in str(done.failed["a"])
    assert not (tmp_path / "out/a_boxes.json").exists()


def test_a_model_that_does_not_know_its_training_images_says_so(own_copy, images, tmp_path):
    plan = own_copy.model / "consolidated/plan.json"
    content = json.loads(plan.read_text())
    del content["training_images"]
    plan.write_text(json.dumps(content))
    job = _job(own_copy, images, tmp_path / "out", strict=True)
    said = []
    done = predict_job(job, said.append)
    assert said[0].startswith("the model does not say which images it was trained on")
    assert [result.case_id for result in done.results] == ["a", "b"]
    index = json.loads(write_index(job, done, job.folder.inference_plan(-1), {}).read_text())
    assert index["compared_with_training"] is False
