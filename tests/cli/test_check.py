"""``nndet_psma check``."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nndet_psma.cli.check import build_parser, run
from nndet_psma.core.geometry import Geometry
from nndet_psma.dataset.images import write_volume


@pytest.fixture
def task(tmp_path, monkeypatch):
    root = tmp_path / "Task007_Bond"
    grid = Geometry((3, 4, 5), (1, 1, 1))
    (root / "raw_splitted" / "labelsTr").mkdir(parents=True)
    write_volume(root / "raw_splitted/imagesTr/a_0000.nii.gz", np.full((3, 4, 5), -1000, np.int16), grid)
    write_volume(root / "raw_splitted/labelsTr/a.nii.gz", np.zeros((3, 4, 5), np.uint8), grid)
    (root / "raw_splitted/labelsTr/a.json").write_text('{"instances": {}}')
    description = {"task": root.name, "dim": 3, "labels": {"0": "node"}, "modalities": {"0": "CT"}}
    (root / "dataset.json").write_text(json.dumps(description))
    monkeypatch.setenv("det_data", str(tmp_path))
    return root


def test_good(task, capsys):
    assert run(build_parser().parse_args(["7", "--full"])) == 0
    assert "nothing to complain about" in capsys.readouterr().out


def test_findings_in_table_and_file(task, capsys, tmp_path):
    (task / "raw_splitted/labelsTr/a.json").write_text('{"instances": {"1": 4}}')
    assert run(build_parser().parse_args(["Bond", "--full", "--json", str(tmp_path / "out.json")])) == 1
    kinds = [finding["kind"] for finding in json.loads((tmp_path / "out.json").read_text())]
    assert kinds == ["class out of range", "mask and JSON disagree"]
    assert "2 errors, 0 warnings" in capsys.readouterr().out


def test_warnings_do_not_fail(task):
    write_volume(
        task / "raw_splitted/imagesTr/a_0000.nii.gz",
        np.zeros((3, 4, 5), np.int16),
        Geometry((3, 4, 5), (1, 1, 1)),
    )
    assert run(build_parser().parse_args(["7", "--full"])) == 0
