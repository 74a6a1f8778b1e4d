"""nndet_psma export-model and import-model as typed, each in its own process state."""

from __future__ import annotations

import pytest
from tiny_place import MODEL, TASK

from nndet_psma.cli.umbrella import main


@pytest.fixture
def place(trained, monkeypatch):
    trained.enter(monkeypatch)
    return trained


def test_there_and_back(place, tmp_path, monkeypatch, capsys):
    file = tmp_path / "model.zip"
    assert main(["export-model", "900", MODEL, "-o", str(file), "--licence", "CC0"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{file} (")
    assert "folds [0, 1]" in said[0]
    assert said[1] == "licence: CC0"
    monkeypatch.setenv("det_models", str(tmp_path / "models"))
    assert main(["import-model", str(file)]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1] == f"Next: nndet_predict {TASK} {MODEL} -i IMAGES -o FOLDER"
    )
    assert main(["import-model", str(file)]) == 2
    assert "a model is there already" in capsys.readouterr().err
    assert main(["import-model", str(file), "--force", "--task", "900"]) == 0
    assert main(["import-model", str(file), "-o", str(tmp_path / "here")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("Next: Predictor.from_folder(")


def test_mistakes(place, tmp_path, capsys):
    assert main(["export-model", "900", MODEL, "-o", str(tmp_path / "model")]) == 2
    assert "the output must be a zip" in capsys.readouterr().err
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04")
    assert main(["import-model", str(tmp_path / "bad.zip")]) == 2
    assert "is no zip, or a damaged one" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["import-model", "x.zip", "--task", "1", "-o", "y"])
