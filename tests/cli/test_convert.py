"""``nndet_psma convert``."""

from __future__ import annotations

import numpy as np
import pytest

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.cli.convert import build_parser, run
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import write_volume
from nndet_psma.dataset.task.description import read_description


@pytest.fixture
def studies(tmp_path):
    mask = np.zeros((3, 4, 5), np.uint8)
    mask[1, 1, 1] = 1
    for name in ("a", "b"):
        folder = tmp_path / "studies" / name
        write_volume(folder / "ct.nii.gz", np.full((3, 4, 5), -5, np.int16), Geometry((3, 4, 5), (1, 1, 1)))
        write_volume(folder / "m.nii.gz", mask, Geometry((3, 4, 5), (1, 1, 1)))
    return tmp_path / "studies"


def _args(studies, *more, name="New", task="201"):
    fixed = ["nifti", str(studies), "--task", task, "--name", name, "--image", "CT=*/ct.nii.gz"]
    return build_parser().parse_args([*fixed, "--label", "*/m.nii.gz", "--num_processes", "1", *more])


def test_nifti(studies, tmp_path, capsys):
    assert run(_args(studies, "--output", str(tmp_path), "--class", "node")) == 0
    assert "2 training cases, 0 test cases, 2 lesions" in capsys.readouterr().out
    description = read_description(tmp_path / "Task201_New")
    assert description.labels == {0: "node"}
    assert description.task == "Task201_New"


def test_which_values_are_lesions(studies, tmp_path, capsys):
    mask = np.zeros((3, 4, 5), np.uint8)
    mask[1, 1, 1], mask[1, 3, 0], mask[1, 3, 4] = 1, 2, 2
    write_volume(studies / "a" / "m.nii.gz", mask, Geometry((3, 4, 5), (1, 1, 1)))
    with pytest.raises(UserError, match=r"a/m\.nii\.gz.*found 0, 1, 2.*--values 2"):
        run(_args(studies, "--output", str(tmp_path)))
    assert not (tmp_path / "Task201_New" / "dataset.json").exists()
    run(_args(studies, "--output", str(tmp_path), "--values", "1,2"))
    assert "4 lesions" in capsys.readouterr().out
    run(_args(studies, "--output", str(tmp_path), "--values", "2", "--overwrite"))
    assert "2 lesions" in capsys.readouterr().out
    for wrong in ("0", "1.5", "x", "1,"):
        with pytest.raises(SystemExit):
            _args(studies, "--values", wrong)


def test_default_folder_is_det_data(studies, tmp_path, monkeypatch):
    monkeypatch.setenv("det_data", str(tmp_path))
    run(_args(studies, "--test-share", "0.5"))
    assert len(list((tmp_path / "Task201_New/raw_splitted/imagesTs").iterdir())) == 1


@pytest.mark.parametrize(("name", "task"), [("a b", "201"), ("a.b", "201"), ("New", "1000")])
def test_bad_task(studies, name, task):
    with pytest.raises(UserError, match="no valid task"):
        run(_args(studies, name=name, task=task))


def test_bad_images(studies, capsys):
    with pytest.raises(UserError, match="same name; found CT, CT"):
        run(_args(studies, "--image", "CT=*/m.nii.gz"))
    with pytest.raises(SystemExit):
        _args(studies, "--image", "CT")
    assert "NAME=PATTERN" in capsys.readouterr().err
