"""Images of one's own that cannot be predicted: one line naming file and remedy, exit code 2."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from failing import fails
from tiny_place import GRID, MODEL, TASK, tiny_case

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.cli import predict
from nndet_psma.dataset.images.images import write_volume

PREP = ["900", "-np", "1", "-npp", "1", "-o", "plan_cfg.target=cpu"]


@pytest.fixture
def models(tiny_task, trained, tmp_path, monkeypatch):
    """The prepared task with copied models; the data are read only."""
    shutil.copytree(trained.models, tmp_path / "models")
    monkeypatch.setenv("det_data", str(tiny_task.data))
    monkeypatch.setenv("det_models", str(tmp_path / "models"))
    return tmp_path / "models" / TASK / MODEL


@pytest.fixture
def folder(tmp_path):
    ct, ctv, _ = tiny_case("test_0")
    write_volume(tmp_path / "in/patient_0000.nii.gz", ct, GRID)
    write_volume(tmp_path / "in/patient_0001.nii.gz", ctv, GRID)
    return tmp_path / "in"


def _predict(capsys, folder, *expected, options=()):
    argv = ["900", MODEL, "-i", str(folder), "-o", str(folder.parent / "out"), *options]
    return fails(capsys, predict.main, argv, *expected)


def _case_fails(capsys, folder, *expected):
    """One case fails, the others (there are none) go on: exit code 1, one line for the case."""
    capsys.readouterr()
    assert predict.main(["900", MODEL, "-i", str(folder), "-o", str(folder.parent / "out")]) == 1
    summary, case = capsys.readouterr().err.splitlines()
    assert summary == "nndet_predict: 1 cases could not be predicted"
    assert case.startswith("  patient: ")
    for text in expected:
        assert text in case


def test_no_ctv(models, folder, capsys):
    (folder / "patient_0001.nii.gz").unlink()
    error = _predict(
        capsys, folder, "patient_0001.nii.gz: the CTV of case patient is missing", "--region body"
    )
    assert error.count("patient_0001.nii.gz: ") == 1


def test_no_ct(models, folder, capsys):
    (folder / "patient_0000.nii.gz").unlink()
    error = _predict(capsys, folder, "patient_0000.nii.gz: the CT of case patient is missing")
    assert "--region body" not in error  # that would not help


def test_folder_of_images_is_empty_or_missing(models, folder, capsys):
    shutil.rmtree(folder)
    assert "--region" not in _predict(capsys, folder, f"{folder}: folder does not exist")
    folder.mkdir()
    assert "--region" not in _predict(capsys, folder, f"{folder}: no images in this folder")


def test_empty_ctv(models, folder, capsys):
    write_volume(folder / "patient_0001.nii.gz", np.zeros(GRID.shape, np.uint8), GRID)
    _case_fails(capsys, folder, "the CTV of case patient is empty", "Contour it")


def test_ctv_on_another_grid(models, folder, capsys):
    write_volume(
        folder / "patient_0001.nii.gz", np.ones((5, 6, 7), np.uint8), Geometry((5, 6, 7), GRID.spacing)
    )
    _case_fails(capsys, folder, "CTV of case patient lies on another grid", "(5, 6, 7)", "Resample")


def test_truncated_image_of_ones_own(models, folder, capsys):
    file = folder / "patient_0000.nii.gz"
    file.write_bytes(file.read_bytes()[:4000])
    _case_fails(capsys, folder, str(file))


def test_input_without_output(models, folder, capsys):
    fails(capsys, predict.main, ["900", MODEL, "-i", str(folder)], "-i needs a folder", "Add -o FOLDER")


def test_several_outputs(models, folder, capsys):
    fails(
        capsys,
        predict.main,
        ["900", MODEL, "-i", str(folder), "-o", "a", "b"],
        "several folders",
        "found a, b",
    )


def test_number_of_views(models, capsys):
    fails(capsys, predict.main, ["900", MODEL, "-ntta", "8"], "-ntta 8; expected 0 or 1")
