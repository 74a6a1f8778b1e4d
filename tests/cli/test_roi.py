"""``nndet_psma roi vessels``, on made-up vessels and on the real pelvis."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from tiny_place import real_data

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.cli.umbrella import main
from nndet_psma.dataset.checks.checks import check_report
from nndet_psma.dataset.images.images import read_volume, write_volume
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths

# x runs to the left hand's other side and z downwards, so that file order and canonical order differ
TURNED = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
GRID = Geometry((12, 24, 30), (2.0, 2.0, 2.0), (5.0, -7.0, 30.0), TURNED)


@pytest.fixture
def task(tmp_path, monkeypatch):
    """One case whose vessel is a vertical tube."""
    monkeypatch.setenv("det_data", str(tmp_path))
    paths = TaskPaths(tmp_path / "Task300_Pelvis")
    rng = np.random.default_rng(0)
    write_volume(paths.images("Tr") / "p_0000.nii.gz", rng.integers(0, 99, GRID.shape, np.int16), GRID)
    labels = np.zeros(GRID.shape, np.uint8)
    labels[5:7, 10:12, 20:22] = 1
    write_volume(paths.labels("Tr") / "p.nii.gz", labels, GRID)
    (paths.labels("Tr") / "p.json").write_text('{"instances": {"1": 0}}')
    content = {"task": "Task300_Pelvis", "dim": 3, "labels": {"0": "node"}, "modalities": {"0": "CT"}}
    (paths.root / "dataset.json").write_text(json.dumps(content))
    vessel, bone = np.zeros(GRID.shape, np.uint8), np.zeros(GRID.shape, np.uint8)
    vessel[:, 12, 20] = 1
    bone[:, 14:, :] = 1
    folder = tmp_path / "masks" / "p"
    write_volume(folder / "iliac_artery_left.nii.gz", vessel, GRID)
    write_volume(folder / "hip_left.nii.gz", bone, GRID)
    return paths


def _ctv(paths):
    return read_volume(paths.images("Tr") / "p_0001.nii.gz", canonical=False)


def test_the_mask_lies_on_the_grid_of_the_image(task, tmp_path, capsys):
    assert main(["roi", "vessels", "300", "--masks", str(tmp_path / "masks")]) == 0
    assert "CTV is modality 1" in capsys.readouterr().out
    assert read_description(task.root).ctv_modality == 1
    volume = _ctv(task)
    assert volume.geometry == GRID
    # 7 mm hold three voxels of 2 mm; bone begins at row 14
    assert np.flatnonzero(volume.array[6].any(axis=1)).tolist() == [9, 10, 11, 12, 13]
    assert np.flatnonzero(volume.array[6].any(axis=0)).tolist() == [17, 18, 19, 20, 21, 22, 23]
    assert volume.array.any(axis=(1, 2)).all()  # no landmarks: the whole length
    kinds = {finding.kind for finding in check_report(task, full=True).findings}
    assert not {"extra modality", "direction mismatch", "mask not binary"} & kinds


def test_landmarks_end_it(task, tmp_path):
    folder = tmp_path / "masks" / "p"
    femur, sacrum = np.zeros(GRID.shape, np.uint8), np.zeros(GRID.shape, np.uint8)
    # z of the file runs downwards: its first slices are cranial
    femur[9:, 3, 3], sacrum[2:8, 3, 4] = 1, 1
    write_volume(folder / "femur_left.nii.gz", femur, GRID)
    write_volume(folder / "sacrum.nii.gz", sacrum, GRID)
    command = ["roi", "vessels", "300", "--masks", str(tmp_path / "masks")]
    assert main(command) == 0
    assert np.flatnonzero(_ctv(task).array.any(axis=(1, 2))).tolist() == [2, 3, 4, 5, 6, 7, 8]
    assert main([*command, "--overwrite", "--whole-length", "--margin", "0"]) == 0
    assert int(_ctv(task).array.sum()) == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vessels", "aorta"], "no vessels among its structures"),
        (["--margin", "-1"], "no sensible margin"),
        (["--masks", "elsewhere"], "no structures of case p"),
    ],
)
def test_mistakes(task, tmp_path, capsys, arguments, message):
    command = ["roi", "vessels", "300", "--masks", str(tmp_path / "masks"), *arguments]
    assert main(command) == 2
    assert message in capsys.readouterr().err
    assert read_description(task.root).ctv_modality is None


def test_a_ctv_is_not_replaced_unasked(task, tmp_path, capsys):
    command = ["roi", "vessels", "300", "--masks", str(tmp_path / "masks")]
    assert main(command) == 0
    assert main(command) == 2
    assert "has a CTV already" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert "finished before" in capsys.readouterr().out


@pytest.mark.realdata
def test_a_real_pelvis(task, tmp_path):
    source = real_data("totalsegmentator")
    for old in [*task.images("Tr").iterdir(), *task.labels("Tr").iterdir()]:
        old.unlink()
    shutil.copy(source / "example_ct.nii.gz", task.images("Tr") / "p_0000.nii.gz")
    image = read_volume(task.images("Tr") / "p_0000.nii.gz", canonical=False)
    write_volume(task.labels("Tr") / "p.nii.gz", np.zeros(image.array.shape, np.uint8), image.geometry)
    (task.labels("Tr") / "p.json").write_text('{"instances": {}}')
    masks = tmp_path / "real"
    masks.mkdir()
    shutil.copy(source / "example_seg_fast_force_split.nii.gz", masks / "p.nii.gz")
    assert main(["roi", "vessels", "300", "--masks", str(masks)]) == 0
    ctv, numbers = _ctv(task).array > 0, read_volume(masks / "p.nii.gz", canonical=False).array
    # the highest femur voxel lies on slice 18, the highest of sacrum and S1 on slice 52 (the file's z ascends)
    assert np.flatnonzero(ctv.any(axis=(1, 2)))[[0, -1]].tolist() == [19, 51]
    assert ctv[19:52][np.isin(numbers[19:52], [65, 66, 67, 68])].all()
    assert not ctv[np.isin(numbers, [20, 21, 77, 78])].any()
    assert 150 < ctv.sum() * 0.027 < 250  # ml
