"""nndet_psma submit and convert nndet-boxes as typed."""

from __future__ import annotations

import json
import os
import pickle

import pandas as pd
import pytest
from tiny_place import MODEL

from nndet_psma.cli.submit import FORMATS, build_parser
from nndet_psma.cli.umbrella import main
from nndet_psma.stages import submit as stage


@pytest.fixture
def place(trained, monkeypatch):
    trained.enter(monkeypatch)
    return trained


@pytest.mark.parametrize("form", [form for form in FORMATS if not form.startswith("judgements")])
def test_every_format(place, tmp_path, capsys, form):
    assert main(["submit", "900", MODEL, "--format", form, "-o", str(tmp_path / "out")]) == 0
    assert "of 2 cases" in capsys.readouterr().out
    assert (tmp_path / "out/submission.json").is_file()


def test_parser_and_stage_know_the_same_formats():
    assert list(FORMATS) == list(stage.FORMATS)
    assert "--max_per_case" in build_parser().format_help()


def test_default_place_validation_and_limits(own_copy):
    arguments = [
        "submit",
        "900",
        MODEL,
        "--format",
        "luna-csv",
        "--score_threshold",
        "0.01",
        "--max_per_case",
        "3",
    ]
    assert main(arguments) == 0
    table = pd.read_csv(own_copy.model / "consolidated/submission_luna-csv/luna.csv")
    assert table.groupby("seriesuid").size().max() == 3
    assert main([*arguments, "--val", "-f", "0"]) == 0
    table = pd.read_csv(own_copy.model / "fold0/submission_luna-csv/luna_cases.csv")
    assert set(table["seriesuid"]) == set(own_copy.plan.folds[0].val)


def test_a_folder_without_task_tree(place, tmp_path, monkeypatch):
    monkeypatch.delenv("det_data")
    monkeypatch.delenv("det_models")
    source = place.model / "consolidated/test_predictions"
    pkl, boxes = tmp_path / "pkl", tmp_path / "boxes"
    assert main(["submit", "-i", str(source), "-o", str(pkl), "--format", "nndet-pkl"]) == 0
    assert main(["convert", "nndet-boxes", str(pkl), "-o", str(boxes), "--classes", "node"]) == 0
    again = json.loads((boxes / "test_0_boxes.json").read_text())
    first = json.loads((source / "test_0_boxes.json").read_text())
    assert [c["score"] for c in again["candidates"]] == pytest.approx(
        [c["score"] for c in first["candidates"]]
    )
    for ours, theirs in zip(again["candidates"], first["candidates"], strict=True):
        assert ours["box"] == pytest.approx(theirs["box"], abs=1e-3)
    # the same columns under other names: x and y change places
    turned = [
        "convert",
        "nndet-boxes",
        str(pkl),
        "-o",
        str(tmp_path / "turned"),
        "--order",
        "z0,x0,z1,x1,y0,y1",
    ]
    assert main(turned) == 0
    other = json.loads((tmp_path / "turned/test_0_boxes.json").read_text())
    for ours, theirs in zip(other["candidates"], first["candidates"], strict=True):
        assert ours["box"] == pytest.approx([theirs["box"][i] for i in (0, 2, 1, 3, 5, 4)], abs=1e-3)
    # nnDetection's own folder goes straight into a submission, too
    assert main(["submit", "-i", str(pkl), "-o", str(tmp_path / "luna"), "--format", "luna-csv"]) == 0
    assert len(pd.read_csv(tmp_path / "luna/luna.csv")) == sum(
        len(json.loads(file.read_text())["candidates"]) for file in boxes.glob("*.json")
    )


def test_code_in_a_foreign_file_is_not_run(tmp_path, capsys):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'was_here'}",)

    (tmp_path / "in").mkdir()
    (tmp_path / "in/x_boxes.pkl").write_bytes(pickle.dumps(Attack()))
    for arguments in (
        ["submit", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--format", "luna-csv"],
        ["convert", "nndet-boxes", str(tmp_path / "in"), "-o", str(tmp_path / "out")],
    ):
        assert main(arguments) == 2
        assert "holds more than numbers, so it was not read" in capsys.readouterr().err
    assert not (tmp_path / "was_here").exists()
    assert not (tmp_path / "out").exists()


def test_arguments_that_do_not_fit(place, tmp_path, capsys):
    for arguments, message in (
        (["900"], "name a task and a model, or a folder with -i"),
        (["-i", str(tmp_path)], "it needs -o FOLDER and no model"),
        (["900", MODEL, "-i", str(tmp_path), "-o", "x"], "it needs -o FOLDER and no model"),
        (["-i", str(tmp_path), "-o", "x"], "holds no predictions"),
        (["900", "Other"], "unknown model 'Other'"),
    ):
        assert main(["submit", *arguments, "--format", "luna-csv"]) == 2
        assert message in capsys.readouterr().err
    assert main(["convert", "nndet-boxes", str(tmp_path), "-o", "x", "--vote_iou", "3"]) == 2
    assert "thresholds lie between 0 and 1" in capsys.readouterr().err
