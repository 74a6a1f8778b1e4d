"""Names to classes: decorator, entry point, dotted path."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from nndet_psma.core import registry as registry_module
from nndet_psma.core.errors import UserError
from nndet_psma.core.registry import Registry, trusted_code
from nndet_psma.planners.registry import PLANNERS
from nndet_psma.trainers.registry import TRAINERS


class Thing:
    pass


def _another_thing():
    class Thing:
        pass

    return Thing


def test_register_and_find():
    things: Registry[Thing] = Registry("thing")
    assert things.register(Thing) is Thing
    assert things["Thing"] is Thing
    assert list(things) == ["Thing"]
    assert "Thing" in things
    assert "Other" not in things


def test_the_same_class_may_come_twice_another_may_not():
    things: Registry[Thing] = Registry("thing")
    things.register(Thing)
    things.register(Thing)  # a module imported again
    with pytest.raises(ValueError, match="two things are named Thing"):
        things.register(_another_thing())


def test_a_miss_lists_what_exists():
    things: Registry[Thing] = Registry("thing")
    with pytest.raises(UserError, match="unknown thing 'Nothing'; expected one of none registered"):
        things["Nothing"]
    things.register(Thing)
    with pytest.raises(UserError, match="expected one of Thing"):
        things["Nothing"]


def test_dotted_path():
    things: Registry[object] = Registry("thing")
    with trusted_code():
        assert things["nndet_psma.core.errors.UserError"] is UserError
    assert things["nndet_psma.core.errors.UserError"] is UserError  # known now


def test_a_dotted_path_needs_trust(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"evil_module\.Thing' is code from outside .* --trust-code"):
        Registry("thing")["evil_module.Thing"]
    with trusted_code(False), pytest.raises(UserError, match="was not imported"):
        Registry("thing")["evil_module.Thing"]
    with trusted_code():
        pass
    with pytest.raises(UserError, match="was not imported"):
        Registry("thing")["evil_module.Thing"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module.Thing", "cannot be imported; found No module named"),
        ("nndet_psma.core.errors.Nothing", "cannot be imported; found module"),
        ("nndet_psma.boxes.box.empty_boxes", "is not a class"),
        (".Thing", "cannot be imported"),
        ("..core.Thing", "cannot be imported"),
    ],
)
def test_dotted_paths_that_fail(path, message):
    with trusted_code(), pytest.raises(UserError, match=f"thing '{path}' {message}"):
        Registry("thing")[path]


def test_entry_points_of_this_package():
    assert PLANNERS["PSMA25DPlanner"].__module__ == "nndet_psma.systems.psma25d.planner"
    assert TRAINERS["MaskRCNN25D"].__module__ == "nndet_psma.systems.psma25d.trainer"
    assert "PSMA25DPlanner" in PLANNERS
    assert "MaskRCNN25D" in list(TRAINERS)


def test_entry_points_are_found_and_two_of_one_name_refused(monkeypatch):
    def entries(group):
        values = ["nndet_psma.core.errors:UserError", "nndet_psma.core.schema:SchemaError"]
        return [
            EntryPoint("Twice", values[0], group),
            EntryPoint("Twice", values[1], group),
            EntryPoint("Once", values[1], group),
        ]

    monkeypatch.setattr(registry_module, "entry_points", entries)
    things: Registry[object] = Registry("thing", "some.group")
    assert things["Once"].__name__ == "SchemaError"
    with pytest.raises(
        UserError, match=r"offered by several installed packages; found .*UserError, .*Schema"
    ):
        things["Twice"]


def test_a_broken_entry_point_is_named(monkeypatch):
    monkeypatch.setattr(
        registry_module, "entry_points", lambda group: [EntryPoint("Broken", "no_such_module:Thing", group)]
    )
    with pytest.raises(UserError, match="thing 'Broken' cannot be imported; found No module named"):
        Registry("thing", "some.group")["Broken"]
