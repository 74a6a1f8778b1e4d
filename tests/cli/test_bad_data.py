"""Raw data that are wrong: one line naming file and remedy, exit code 2, no traceback."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from failing import fails
from tiny_place import GRID, TASK, tiny_case

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.cli import prep
from nndet_psma.dataset.images.images import write_volume

PREP = ["900", "-np", "1", "-npp", "1", "-o", "plan_cfg.target=cpu"]


@pytest.fixture
def raw(raw_place, tmp_path, monkeypatch):
    """A raw task of the test's own."""
    place = raw_place.copy(tmp_path)
    place.enter(monkeypatch)
    return place.paths


def test_missing_modality(raw, capsys):
    (raw.images("Tr") / "case_2_0001.nii.gz").unlink()
    fails(capsys, prep.main, PREP, "case_2_0001.nii.gz: the CTV of case case_2 is missing", "Add case_2_0001")


def test_label_on_another_grid(raw, capsys):
    moved = Geometry(GRID.shape, GRID.spacing, (0.0, 0.0, 0.0))
    write_volume(raw.labels("Tr") / "case_1.nii.gz", tiny_case("case_1")[2], moved)
    fails(
        capsys,
        prep.main,
        PREP,
        "labelsTr/case_1.nii.gz: not on the grid",
        "origin",
        "Resample it on that grid",
    )


def test_label_of_another_shape(raw, capsys):
    write_volume(
        raw.labels("Tr") / "case_1.nii.gz",
        np.zeros((9, 40, 48), np.uint8),
        Geometry((9, 40, 48), GRID.spacing),
    )
    fails(capsys, prep.main, PREP, "case_1.nii.gz", "(10, 40, 48)", "(9, 40, 48)")


def test_ids_not_consecutive(raw, capsys):
    instances = tiny_case("case_1")[2]
    write_volume(raw.labels("Tr") / "case_1.nii.gz", instances * 3, GRID)
    (raw.labels("Tr") / "case_1.json").write_text('{"instances": {"3": 0}}')
    fails(
        capsys,
        prep.main,
        PREP,
        "case_1.json: instance ids are not consecutive from 1",
        "Number the instances",
    )


@pytest.mark.parametrize("options", [["--full_check"], []])
def test_json_and_mask_disagree(raw, capsys, options):
    (raw.labels("Tr") / "case_1.json").write_text('{"instances": {"1": 0, "2": 0}}')
    error = fails(
        capsys, prep.main, [*PREP[:5], *options, *PREP[5:]], "case_1.nii.gz: mask and JSON disagree"
    )
    assert "ids 2 only in case_1.json" in error


def test_class_that_does_not_exist(raw, capsys):
    (raw.labels("Tr") / "case_1.json").write_text('{"instances": {"1": 4}}')
    fails(capsys, prep.main, PREP, "case_1.json", "expected 0 to 0; found 4", "Classes count from 0")


def test_json_cut_short(raw, capsys):
    (raw.labels("Tr") / "case_1.json").write_text('{"instances": {"1": ')
    fails(capsys, prep.main, PREP, "case_1.json: not valid JSON")


def test_empty_task(raw, capsys):
    shutil.rmtree(raw.raw_splitted)
    fails(capsys, prep.main, PREP, "imagesTr: folder does not exist")
    raw.images("Tr").mkdir(parents=True)
    raw.labels("Tr").mkdir(parents=True)
    fails(capsys, prep.main, PREP, "imagesTr: no images in this folder", "<case>_0000.nii.gz")


def test_no_description(raw, capsys):
    (raw.root / "dataset.json").unlink()
    fails(capsys, prep.main, PREP, TASK, "no data set description", "Write dataset.json")


def test_dot_in_case_name(raw, capsys):
    for index in range(2):
        file = raw.images("Tr") / f"case_1_{index:04d}.nii.gz"
        file.rename(file.with_name(f"case.1_{index:04d}.nii.gz"))
    fails(capsys, prep.main, PREP, "case.1_0000.nii.gz: dot in the name of a case", "Rename the case")


@pytest.mark.parametrize("options", [["--full_check"], [], ["--no_check"]])
def test_truncated_image(raw, capsys, options):
    file = raw.images("Tr") / "case_1_0000.nii.gz"
    file.write_bytes(file.read_bytes()[:5000])
    fails(capsys, prep.main, [*PREP[:5], *options, *PREP[5:]], "case_1_0000.nii.gz")


def test_no_lesion_in_any_case(raw, capsys):
    for file in raw.labels("Tr").glob("*.nii.gz"):
        write_volume(file, np.zeros(GRID.shape, np.uint8), GRID)
        file.with_name(file.name.replace(".nii.gz", ".json")).write_text('{"instances": {}}')
    fails(capsys, prep.main, PREP, "no training case has a lesion", "Check labelsTr")


def test_splits_with_an_unknown_case(raw, capsys):
    raw.splits.write_text(json.dumps([{"train": ["case_0"], "val": ["case_9"]}]))
    fails(capsys, prep.main, PREP, "splits.json: fold 0 names cases that do not exist; found case_9")


def test_edited_plan_is_not_overwritten(tiny_task, tmp_path, monkeypatch, capsys):
    place = tiny_task.copy(tmp_path)
    place.enter(monkeypatch)
    file = place.paths.plan("PSMA25D")
    file.write_text(file.read_text().replace('"positive_fraction": 0.', '"positive_fraction": 0.1'))
    edited = file.read_bytes()
    fails(capsys, prep.main, PREP, "PSMA25D.json: another plan of this name exists", "prep.overwrite=true")
    assert file.read_bytes() == edited
