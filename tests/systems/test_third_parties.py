"""Entry points of others: two systems for one data set, one that cannot be imported, objects without a truth."""

from __future__ import annotations

import pytest
from toy_task import (
    CASE_BLOCK,
    ENTRY_POINTS,
    GRID,
    OBJECT_BLOCK,
    TASK,
    install,
    write_toy_task,
)

from nndet_psma.cli.umbrella import main
from nndet_psma.core.atomic import read_json
from nndet_psma.dataset.images.images import read_volume, write_volume
from nndet_psma.dataset.task.description import read_description
from nndet_psma.systems.choice import default_system


@pytest.fixture
def enter(tmp_path, monkeypatch):
    def build(block, entries=ENTRY_POINTS):
        paths = write_toy_task(tmp_path / "data", block)
        install(tmp_path / "site-packages", monkeypatch, entries)
        monkeypatch.setenv("det_data", str(tmp_path / "data"))
        monkeypatch.setenv("det_models", str(tmp_path / "models"))
        return paths

    return build


PREP = ["prep", "910", "-np", "1", "-npp", "1", "-o", "plan_cfg.target=cpu"]


def test_detectors_step_back_where_a_data_set_names_its_target(enter):
    assert default_system(read_description(enter(OBJECT_BLOCK).root)).name == "toy"


def test_two_systems_that_suit_are_refused(enter, capsys):
    enter(OBJECT_BLOCK, {**ENTRY_POINTS, "rival": "toy_system.rival:Rival"})
    assert main(PREP) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "several systems suit this data set" in error
    assert "found rival: its name comes first; toy: dataset.json asks for objects" in error
    assert "Name one with -o train=NAME" in error
    assert main([*PREP, "train=toy"]) == 0


def test_no_system_suits(enter, capsys):
    enter({"target": "something else"})
    assert main(PREP) == 2
    assert "no system suits this data set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("no_such_package.system:System", "No module named 'no_such_package'"),
        ("toy_system.system:Nothing", "has no attribute 'Nothing'"),
        ("toy_broken:System", "invalid syntax"),
    ],
)
def test_an_entry_point_that_cannot_be_imported(enter, tmp_path, capsys, target, found):
    enter(OBJECT_BLOCK, {**ENTRY_POINTS, "broken": target})
    (tmp_path / "site-packages/toy_broken.py").write_text("class System(:\n")
    assert main(PREP) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "system 'broken' cannot be imported" in error
    assert found in error
    assert f"Mend or uninstall the package that offers {target}" in error


def train(model):
    assert main(PREP) == 0
    assert main(["train", "910", "-o", "exp.fold=all"]) == 0
    assert main(["consolidate", "910", model, "--sweep_boxes"]) == 0
    assert main(["predict", "910", model]) == 0


def test_objects_without_a_truth_are_left_out_and_told(enter, tmp_path, capsys):
    """Object 1 of test_0 goes by the number 9 in the mask that is judged, which the label does not know."""
    paths = enter(OBJECT_BLOCK)
    mask = paths.images("Ts") / "test_0_0001.nii.gz"
    numbers = read_volume(mask).array.copy()
    numbers[numbers == 1] = 9
    write_volume(mask, numbers, GRID)
    train("ToyTrainer_TOY")
    capsys.readouterr()
    assert main(["eval", "910", "ToyTrainer_TOY", "-1", "--test"]) == 0
    out = capsys.readouterr().out
    assert "not scored: 1 judged, but not in the label" in out
    assert "not scored: 1 in the label, but not judged" in out
    folder = tmp_path / "models" / TASK / "ToyTrainer_TOY/consolidated/test_results"
    scores = read_json(folder / "scores.json")
    assert scores["left_out"] == {"unknown": 0, "foreign": 1, "unjudged": 1}
    assert scores["num_objects"] == 5
    assert len((folder / "objects.csv").read_text().splitlines()) == 7


def test_cases_without_a_class_are_left_out_and_told(enter, tmp_path, capsys):
    paths = enter(CASE_BLOCK)
    paths.clinical.write_text(paths.clinical.read_text().replace("test_2,test_2,1", "test_2,test_2,"))
    train("ToyCallTrainer_TOYCALL")
    capsys.readouterr()
    assert main(["eval", "910", "ToyCallTrainer_TOYCALL", "-1", "--test"]) == 0
    out = capsys.readouterr().out
    assert "2 cases of 2 cases" in out
    assert "not scored: 1 judged, but of unknown class" in out


def test_a_column_that_is_missing_is_told(enter, capsys):
    paths = enter(CASE_BLOCK)
    paths.clinical.write_text(paths.clinical.read_text().replace("recurrence", "psa"))
    assert main(PREP) == 0
    assert main(["train", "910", "-o", "exp.fold=0"]) == 2
    assert "there is no column 'recurrence'" in capsys.readouterr().err
