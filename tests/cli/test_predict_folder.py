"""nndet_predict as typed: one file, a folder in parts, a bad case among good ones."""

from __future__ import annotations

import json

import pytest
from tiny_place import GRID, MODEL, tiny_case

from nndet_psma.cli.predict import main
from nndet_psma.dataset.images.images import write_volume

CPU = "inference_kwargs.device=cpu"


@pytest.fixture
def images(trained, tmp_path, monkeypatch):
    trained.enter(monkeypatch)
    monkeypatch.delenv("det_data")  # no task tree is needed
    ct, ctv, _ = tiny_case("test_0")
    for name in ("a", "b"):
        write_volume(tmp_path / f"in/{name}_0000.nii.gz", ct, GRID)
        write_volume(tmp_path / f"in/{name}_0001.nii.gz", ctv, GRID)
    return tmp_path / "in"


def test_one_file(images, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["900", MODEL, "-i", str(images / "a_0000.nii.gz"), "-o", str(out), CPU]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"1 cases in {out}"
    assert sorted(p.name for p in out.iterdir()) == ["a_boxes.json", "predictions.json", "raw"]


def test_one_file_and_its_ctv_elsewhere(images, tmp_path):
    (images / "a_0001.nii.gz").rename(tmp_path / "contour.nii.gz")
    arguments = ["900", MODEL, "-i", str(images / "a_0000.nii.gz"), "--ctv", str(tmp_path / "contour.nii.gz")]
    assert main([*arguments, "-o", str(tmp_path / "out"), CPU]) == 0
    assert main(["900", MODEL, "-i", str(images / "b_0000.nii.gz"), "-o", str(tmp_path / "b"), CPU]) == 0
    ours, theirs = (json.loads((tmp_path / f).read_text()) for f in ("out/a_boxes.json", "b/b_boxes.json"))
    assert ours["candidates"] == theirs["candidates"]


def test_parts(images, tmp_path, capsys):
    for part in ("0", "1"):
        arguments = ["900", MODEL, "-i", str(images), "-d", str(tmp_path / "out"), "-o", CPU]
        assert main([*arguments, "--num_parts", "2", "-part_id", part]) == 0
    index = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [case["case_id"] for case in index["cases"]] == ["a", "b"]
    said = capsys.readouterr().out
    assert said.count("finished before") == 0
    assert main([*arguments, "--num_parts", "2", "--part_id", "2"]) == 2
    assert "part 2 of 2 parts" in capsys.readouterr().err


def test_a_bad_case_is_told_at_the_end(images, tmp_path, capsys):
    (images / "a_0000.nii.gz").write_bytes(b"no image")
    assert main(["900", MODEL, "-i", str(images), "-o", str(tmp_path / "out"), CPU]) == 1
    done = capsys.readouterr()
    assert done.out.splitlines()[-1] == f"1 cases in {tmp_path / 'out'}"
    first, second = done.err.splitlines()
    assert first == "nndet_predict: 1 cases could not be predicted"
    assert second.startswith(f"  a: {images / 'a_0000.nii.gz'}: ")
    index = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [case["case_id"] for case in index["cases"]] == ["b"]
    assert [failed["case_id"] for failed in index["failed"]] == ["a"]


def test_arguments_that_do_not_fit(images, tmp_path, capsys, trained, monkeypatch):
    trained.enter(monkeypatch)
    assert main(["900", MODEL, "--ctv", str(images / "a_0001.nii.gz"), "-o", CPU]) == 2
    assert "--ctv names the CTV of one case" in capsys.readouterr().err
    assert main(["900", MODEL, "-i", str(images), "-o", CPU]) == 2
    assert "-i needs a folder for the results" in capsys.readouterr().err
