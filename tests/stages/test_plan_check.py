"""Contradictions between an edited plan and the data set or the package, found before a voxel is read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tiny_place import TRAIN_OPTIONS, Workplace

from nndet_psma.cli import plan as plan_command
from nndet_psma.cli import prep, train
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.description import read_description
from nndet_psma.stages.prep import check_plan_file


@pytest.fixture
def place(tiny_task: Workplace, tmp_path, monkeypatch) -> Workplace:
    own = tiny_task.copy(tmp_path)
    own.enter(monkeypatch)
    return own


def edit(place: Workplace, change: Any) -> None:
    file = place.paths.plan("PSMA25D")
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def set_key(*path: Any, value: Any) -> Any:
    def change(content: dict[str, Any]) -> None:
        for part in path[:-1]:
            content = content[part]
        content[path[-1]] = value

    return change


FAULTS = [
    (set_key("planner", value="Nobody"), "unknown planner 'Nobody'"),
    (set_key("trainer", value="Nobody"), "unknown trainer 'Nobody'; expected one of MaskRCNN25D"),
    (set_key("postproc_defaults", "hu_quantile", value=0.55), "postproc_defaults: .*hu_quantile|quantile"),
    (set_key("postproc_defaults", "hu_quantil", value=0.5), "postproc_defaults: .*hu_quantil"),
    (set_key("postproc_grid", "tau7", value=[1]), "postproc_grid of the plan is wrong: .*tau7"),
    (
        set_key("modalities", value={"0": "CT", "1": "CTV", "2": "PET"}),
        "modalities of the plan are not those",
    ),
    (set_key("classes", value={"0": "lesion", "1": "other"}), "classes of the plan are not those"),
    (set_key("folds", 0, "val", value=["nobody"]), "fold 0 of the plan names cases that do not exist"),
    (set_key("batch_size", value=0), "batch_size: expected a number in"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_a_contradiction_is_found_before_reading(
    place: Workplace, change: Any, message: str, monkeypatch
) -> None:
    edit(place, change)
    monkeypatch.setattr(
        "nndet_psma.dataset.images.images.read_volume", lambda *_, **__: pytest.fail("a voxel was read")
    )
    with pytest.raises(UserError, match=message):
        check_plan_file(place.paths, place.paths.plan("PSMA25D"), read_description(place.paths.root))


def test_one_patient_on_both_sides(place: Workplace) -> None:
    # cases 0 and 1 are of one patient
    def change(content: dict[str, Any]) -> None:
        content["folds"][0] = {"train": ["case_0", "case_2"], "val": ["case_1"]}

    edit(place, change)
    with pytest.raises(
        UserError,
        match=r"fold 0 of the plan trains and validates on one patient.*case_0 in train, case_1 in val",
    ):
        check_plan_file(place.paths, place.paths.plan("PSMA25D"), read_description(place.paths.root))


def test_commands_say_it_in_one_line(place: Workplace, capsys) -> None:
    edit(place, set_key("folds", 0, "val", value=["nobody"]))
    for main, arguments in (
        (plan_command.main, ["check", "900"]),
        (prep.main, ["900", "-np", "1", "-npp", "1", "-o", "prep.plan=false"]),
        (train.main, ["900", "-o", "exp.fold=0", *TRAIN_OPTIONS]),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert "names cases that do not exist" in error
        assert error.strip().count("\n") == 0


def test_a_good_plan_holds_together(place: Workplace, capsys) -> None:
    assert plan_command.main(["check", "900"]) == 0
    assert "holds together" in capsys.readouterr().out


def test_differences_on_the_command_line(place: Workplace, capsys) -> None:
    file = place.paths.plan("PSMA25D")
    place.paths.plan("OTHER").write_text(file.read_text().replace('"batch_size": 2', '"batch_size": 3'))
    assert plan_command.main(["diff", "900", "PSMA25D", "OTHER"]) == 0
    out = capsys.readouterr().out
    assert "1 differences" in out
    assert "batch_size" in out
    assert plan_command.main(["diff", "900", "PSMA25D", str(file)]) == 0
    assert "do not differ" in capsys.readouterr().out
    assert plan_command.main(["diff", "900", "PSMA25D", "NOTHING"]) == 2
    assert "OTHER, PSMA25D" in capsys.readouterr().err
