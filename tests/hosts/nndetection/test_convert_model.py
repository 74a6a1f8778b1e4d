"""``nndet_psma convert nndet-model``: nnDetection's results evaluated and reported by our commands."""

from __future__ import annotations

from nndet_psma.cli import convert, eval, report
from nndet_psma.core.atomic import read_json


def test_in(box_task, capsys):
    command = ["nndet-model", box_task.paths.name, "RetinaUNetV001_D3V001_3d", "--as", "Imported"]
    assert convert.main(command) == 0
    told = capsys.readouterr().out
    assert "fold 1: 1 validation and 0 test cases, lesions from score 0.7" in told
    assert "fold -1: 3 validation and 1 test cases" in told
    assert eval.main([box_task.paths.name, "Imported", "-1", "--boxes"]) == 0
    scores = read_json(box_task.source("Imported") / "consolidated/val_results/scores.json")
    assert scores["num_cases"] == 3
    assert report.main([box_task.paths.name, "Imported"]) == 0
    assert "boxes of another framework" in (box_task.source("Imported") / "report.html").read_text()
