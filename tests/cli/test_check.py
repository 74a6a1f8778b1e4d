"""``nndet_psma check``."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_place import GRID, TASK, TRAINING, tiny_case

from nndet_psma.cli.check import build_parser, main, run
from nndet_psma.dataset.faults.kinds import KINDS
from nndet_psma.dataset.images.images import write_volume


@pytest.fixture
def labels(raw_place, tmp_path, monkeypatch):
    """The labels of a tiny task of the test's own."""
    place = raw_place.copy(tmp_path)
    place.enter(monkeypatch)
    monkeypatch.setenv("COLUMNS", "160")
    return place.paths.labels("Tr")


def _run(*argv):
    return run(build_parser().parse_args([*argv, "--num_processes", "1"]))


def test_good(labels, capsys):
    assert _run("900", "--full") == 0
    shown = capsys.readouterr().out
    assert "nothing to complain about" in shown
    assert "6 training and 2 test cases, 8 lesions, 1 cases without lesions; all voxels were read" in shown


def test_findings_in_table_and_file(labels, capsys, tmp_path):
    (labels / "case_1.json").write_text('{"instances": {"1": 4, "2": 0}}')
    write_volume(labels / "case_2.nii.gz", tiny_case("case_2")[2].astype(np.float32), GRID)
    assert _run("Tiny", "--full", "--json", str(tmp_path / "out.json")) == 1
    content = json.loads((tmp_path / "out.json").read_text())
    assert (content["schema"], content["version"], content["task"]) == ("nndet_psma.check_report", 1, TASK)
    assert (content["errors"], content["warnings"], content["full"]) == (2, 1, True)
    assert content["training_cases"] == len(TRAINING)
    kinds = [finding["kind"] for finding in content["findings"]]
    assert kinds == ["class out of range", "mask and JSON disagree", "mask of floats"]
    assert content["counts"] == dict.fromkeys(kinds, 1)
    shown = capsys.readouterr().out
    assert f"{TASK}: 2 errors" in shown
    assert f"{TASK}: 1 warnings" in shown
    assert shown.index("class out of range") < shown.index("mask of floats")
    assert "2 errors, 1 warnings: " in shown
    assert "case_1.json" in shown


def test_warnings_do_not_fail(labels):
    write_volume(labels / "case_2.nii.gz", tiny_case("case_2")[2].astype(np.float32), GRID)
    assert _run("900", "--full") == 0


def test_the_catalogue(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["--kinds"]) == 0
    shown = capsys.readouterr().out
    assert f"{len(KINDS)} kinds of faults" in shown
    assert all(kind in shown for kind in KINDS)


def test_no_task(capsys):
    assert main([]) == 2
    assert "no task was named" in capsys.readouterr().err


def test_a_full_disk_leaves_no_half_report(labels, tmp_path, monkeypatch, capsys):
    target = tmp_path / "reports" / "out.json"
    target.parent.mkdir()
    target.write_text("the old report")

    def full(self, text, **_):
        with self.open("w") as handle:
            handle.write(text[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    assert main(["900", "--json", str(target), "--num_processes", "1"]) == 2
    error = capsys.readouterr().err
    assert "the disk is full" in error
    assert "Free space" in error
    assert [file.name for file in target.parent.iterdir()] == ["out.json"]
    assert target.read_text() == "the old report"


def test_names_of_files_do_not_steer_the_terminal(labels, capsys):
    (labels / "a\x1b[31m.txt").touch()
    assert _run("900") == 1
    shown = capsys.readouterr().out
    assert "\\x1b[31m.txt" in shown
    assert "\x1b[31m" not in shown


@pytest.mark.parametrize("folder", [True, False])
def test_a_task_to_predict_only_is_not_faulty(labels, capsys, folder):
    """No training case, as `convert dicom` makes of patients without lesions; the fingerprint asks for some later."""
    for split in ("images", "labels"):
        shutil.rmtree(labels.parent / f"{split}Tr")
        if folder:
            (labels.parent / f"{split}Tr").mkdir()
    assert _run("900", "--full") == 0
    assert "a task to predict only: 0 training and 2 test cases" in capsys.readouterr().out
    shutil.rmtree(labels.parent / "imagesTs")
    assert _run("900", "--full") == 1  # with no case at all it is
