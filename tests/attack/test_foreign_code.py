"""Models that name code: nothing outside this package is imported unless the user says so."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from hostile_models import (
    change_json,
    copied_model,
    forged_archive,
    json_member,
    plan_of,
    thresholds_of,
)
from segmentation_model import write_segmentation_model
from tiny_place import MODEL, TASK

from nndet_psma import Predictor
from nndet_psma.cli import import_model, predict
from nndet_psma.core.errors import UserError
from nndet_psma.postproc.steps.settings import DEFAULT_STEPS
from nndet_psma.postproc.steps.step import STEPS

STEP = """
from pathlib import Path
from nndet_psma.postproc.steps.builtin_steps import ZoneFilter

Path("it_ran").write_text("")


class Step(ZoneFilter):
    pass
"""


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A module in the working folder; importing it leaves a file."""
    (tmp_path / "foreign_module.py").write_text(STEP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "it_ran"
    sys.modules.pop("foreign_module", None)
    STEPS._classes.pop("foreign_module.Step", None)


def _step(content):
    steps = ["foreign_module.Step" if step == "ZoneFilter" else step for step in DEFAULT_STEPS]
    content.get("settings", content.get("postproc_defaults"))["steps"] = steps


def _trainer(content):
    content["trainer"] = "foreign_module.Step"


CHANGES = {
    "step of the thresholds": ("plan_inference.json", _step),
    "step of the plan": ("plan.json", _step),
    "trainer": ("plan.json", _trainer),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_an_archive_runs_nothing(whole, foreign, tmp_path, capsys, kind):
    file = forged_archive(whole, tmp_path / "bad.zip", json_member(*CHANGES[kind]))
    assert import_model.main([str(file), "-o", str(tmp_path / "here")]) == 2
    error = capsys.readouterr().err
    assert "code from outside this package, and was not imported" in error
    assert "--trust-code" in error
    assert not (tmp_path / "here" / "consolidated").exists()
    with pytest.raises(UserError, match="was not imported"):
        Predictor.from_folder(file, "cpu")
    assert not foreign.exists()


@pytest.mark.parametrize("kind", ["step of the thresholds", "trainer"])
def test_a_folder_runs_nothing(trained, foreign, tmp_path, monkeypatch, capsys, kind):
    trained.enter(monkeypatch)
    monkeypatch.setenv("det_models", str(tmp_path))
    model = copied_model(trained.model, tmp_path / TASK / MODEL)
    name, change = CHANGES[kind]
    change_json(plan_of(model) if name == "plan.json" else thresholds_of(model), change)
    assert predict.main(["900", MODEL, "-o", str(tmp_path / "out")]) == 2
    assert "was not imported" in capsys.readouterr().err
    with pytest.raises(UserError, match="was not imported"):
        Predictor.from_folder(model, "cpu")
    assert not foreign.exists()
    assert not (tmp_path / "out").exists()


def test_trust_is_the_users_to_give(trained, whole, foreign, tmp_path, monkeypatch, capsys):
    """The step is a zone filter by another name, so the lesions are those of the model as it was."""
    file = forged_archive(whole, tmp_path / "own.zip", json_member(*CHANGES["step of the thresholds"]))
    monkeypatch.setenv("det_models", str(tmp_path))
    monkeypatch.setenv("det_data", str(trained.data))
    assert import_model.main([str(file), "--trust-code"]) == 0
    assert foreign.exists()
    images = trained.paths.images("Ts") / "test_0_0000.nii.gz"
    ctv = trained.paths.images("Ts") / "test_0_0001.nii.gz"
    found = Predictor.from_folder(tmp_path / TASK / MODEL, "cpu", trust_code=True).predict(images, ctv)
    before = json.loads((trained.model / "consolidated/test_predictions/test_0_boxes.json").read_text())
    assert [lesion.score for lesion in found] == [lesion["score"] for lesion in before["lesions"]]


class Gadget:
    def __reduce__(self):
        return open, ("it_ran", "w")


@pytest.mark.parametrize("place", ["network_weights", "logging", "init_args"])
def test_a_checkpoint_of_a_segmentation_runs_nothing(
    raw_place, foreign, tmp_path, monkeypatch, capsys, place
):
    """nnU-Net itself unpickles whatever a checkpoint holds."""
    raw_place.enter(monkeypatch)
    monkeypatch.setenv("det_models", str(tmp_path))
    folder = write_segmentation_model(tmp_path / TASK / MODEL, folds=[0])
    file = next(folder.root.rglob("checkpoint_final.pth"))
    torch.save({**torch.load(file, weights_only=True), place: Gadget()}, file)
    assert predict.main(["900", MODEL, "-o", str(tmp_path / "out")]) == 2
    assert "holds more than weights and numbers and is not loaded" in capsys.readouterr().err
    with pytest.raises(UserError, match="is not loaded"):
        Predictor.from_folder(folder.root, "cpu")
    assert not foreign.exists()
