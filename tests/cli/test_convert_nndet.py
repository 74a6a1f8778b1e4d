"""``nndet_psma convert to-nndet``: our results as a model folder of nnDetection."""

from __future__ import annotations

import pytest
from tiny_place import MODEL

from nndet_psma.cli import convert


def test_out(own_copy, capsys):
    for fold, flags in (("0", []), ("-1", ["--test"])):
        assert convert.main(["to-nndet", "900", MODEL, fold, *flags, "--as", "Foreign_X_3d"]) == 0
    assert "nndet_eval 900 Foreign_X_3d -1 --test --boxes --host nndet" in capsys.readouterr().out
    foreign = own_copy.models / own_copy.paths.name / "Foreign_X_3d"
    ours = sorted((own_copy.model / "consolidated/test_predictions").glob("*_boxes.json"))
    theirs = sorted((foreign / "consolidated/test_predictions").glob("*_boxes.pkl"))
    assert ours
    assert [file.stem for file in ours] == [file.stem for file in theirs]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nndet-model", "900", "Nothing", "--as", "New"], "no such model folder"),
        (["nndet-model", "900", "Nothing", "--as", "../New"], "no name of a model folder"),
        (["to-nndet", "900", MODEL, "0", "--as", MODEL], "holds a model of this package"),
        (["nndet-model", "900", "Nothing", "--as", "New", "--vote_iou", "2"], "between 0 and 1"),
    ],
)
def test_mistakes(own_copy, capsys, arguments, message):
    assert convert.main(arguments) == 2
    assert message in capsys.readouterr().err
