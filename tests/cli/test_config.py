"""The configuration: what -o may say, and what it is told when it is wrong."""

from __future__ import annotations

import argparse
from importlib.resources import files

import pytest
import yaml

from nndet_psma.artifacts.run_config import InferenceConfig, PrepConfig, RunConfig, SweepConfig
from nndet_psma.cli import config as command
from nndet_psma.cli.arguments import add_overwrites
from nndet_psma.cli.config import compose_config, default_content, presets
from nndet_psma.cli.config_text import attribute_texts
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import to_plain
from nndet_psma.planners.detector_options import DetectorOptions
from nndet_psma.systems.psma25d.options import SliceOptions
from nndet_psma.systems.psma25d.system import PSMA25D
from nndet_psma.systems.system import SYSTEMS
from nndet_psma.trainers.settings import TrainerSettings


def test_defaults():
    config = compose_config("Task900_Tiny", [])
    assert config.exp.id == "MaskRCNN25D_PSMA25D"
    assert (config.exp.fold, config.host, config.sweep.criterion) == (0, "embedded", "auto")
    assert config.plan_overwrites == {}


def test_defaults_are_those_of_the_dataclasses():
    config = compose_config("t", [])
    assert config.plan_cfg == SliceOptions()
    assert config.trainer_cfg == TrainerSettings()
    assert (config.sweep, config.prep, config.inference_kwargs) == (
        SweepConfig(),
        PrepConfig(),
        InferenceConfig(),
    )


@pytest.mark.parametrize("preset", presets())
def test_defaults_are_those_of_the_code_but_for_what_the_preset_says(preset):
    """Every key that no preset sets comes out as the dataclasses have it, typed."""
    system = SYSTEMS[presets()[preset]]()
    config = compose_config("t", [f"train={preset}"])
    assert (config.task, config.system, config.host) == ("t", system.name, system.host)
    assert (config.module, config.planner) == (system.trainer, system.planner)
    assert type(config.plan_cfg) is system.options_type
    assert type(config.trainer_cfg) is system.settings_type
    said = dict(_flat(_said(system, preset)))
    known = dict(_flat({**default_content(system), "task": "t"}))
    # presets set known keys only
    assert set(said) <= set(known)
    composed = dict(_flat(to_plain(config)))
    name = f"{config.module}_{config.plan}{config.exp.tag}"
    assert composed == {**known, **said, "exp.id": name}
    for group in ("exp", "prep", "train", "sweep", "inference_kwargs"):
        normal = to_plain(RunConfig.__dataclass_fields__[group].default_factory())
        found = to_plain(getattr(config, group))
        assert {**found, "id": None} == {**normal, "id": None}


def _said(system, preset):
    """What the files of a preset and of the one it builds on change, as YAML has it."""
    said: dict = {}
    for name in dict.fromkeys([system.name, preset]):
        file = files(system.presets) / f"{name}.yaml"
        if file.is_file():
            changes = yaml.safe_load(file.read_text())
            said |= {key: {**said.get(key, {}), **value} if isinstance(value, dict) else value
                     for key, value in changes.items()}  # fmt: skip
    return said


def _flat(content, prefix=""):
    """(dotted key, value) of everything that is no group."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_every_preset_says_something_else():
    """A preset that repeats a default would keep it when the default changes."""
    for preset, name in presets().items():
        system = SYSTEMS[name]()
        known = dict(_flat(default_content(system)))
        repeated = {key for key, value in _flat(_said(system, preset)) if known[key] == value}
        assert repeated == set(), preset


def test_a_preset_with_an_unknown_key_is_refused(tmp_path, monkeypatch):
    (tmp_path / "own_presets").mkdir()
    (tmp_path / "own_presets/__init__.py").touch()
    (tmp_path / "own_presets/mine.yaml").write_text("plan_cfg:\n  chanels: multiwindow\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(PSMA25D, "presets", "own_presets")
    with pytest.raises(UserError, match="preset 'mine' sets an unknown key 'chanels'; expected channels"):
        compose_config("t", ["train=mine"])


def test_the_name_of_the_model_follows_module_plan_and_tag():
    assert compose_config("t", ["exp.tag=_a", "plan=MINE"]).exp.id == "MaskRCNN25D_MINE_a"
    assert compose_config("t", ["train=nodeseg", "exp.tag=2"]).exp.id == "nnUNetTrainerNodeSeg_NodeSeg2"
    assert compose_config("t", ["exp.id=own", "exp.tag=_a"]).exp.id == "own"
    assert compose_config("t", ["exp.id=${plan}-${trainer_cfg.save_every}"]).exp.id == "PSMA25D-100"
    assert compose_config("t", ["module=Other", "~exp"]).exp.id == "Other_PSMA25D"


def test_names_may_be_numbers():
    config = compose_config("900", ["plan=7", "exp.tag=3"])
    assert (config.task, config.plan, config.exp.id) == ("900", "7", "MaskRCNN25D_73")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("exp.fol=1", "exp.fold"),
        ("prep.chek=false", "prep.check"),
        ("train.mod=auto", "train.mode"),
        ("trainer_cfg.iteration=3", "trainer_cfg.iterations"),
        ("plan_cfg.windwos=[[1.0,2.0]]", "plan_cfg.windows"),
        ("sweep.criteron=f1", "sweep.criterion"),
        ("inference_kwargs.devise=cpu", "inference_kwargs.device"),
        ("plan_overwrite.seed=3", "plan_overwrites"),
        ("additional_import=[os]", "additional_imports"),
        ("modul=X", "module"),
    ],
)
@pytest.mark.parametrize("system", ["psma25d", "retina3d", "nodeseg"])
def test_a_typo_is_told_the_nearest_key(system, override, key):
    typed = override.partition("=")[0]
    with pytest.raises(
        UserError, match=rf"Could not override '{typed}'; expected {key}; found train={system} {typed}="
    ):
        compose_config("t", [f"train={system}", override])
    # adding it by force does not help either
    name, group = key.rpartition(".")[2], typed.split(".")[0]
    with pytest.raises(UserError, match=rf"configuration: {group}[\w.]*: unknown key; did you mean {name}\?"):
        compose_config("t", [f"train={system}", f"+{override}"])


def test_a_key_unlike_any_other_is_refused_without_advice():
    with pytest.raises(UserError, match=r"Could not override 'qqqq'; found qqqq=1\. nndet_psma") as caught:
        compose_config("t", ["qqqq=1"])
    assert "expected" not in str(caught.value)
    with pytest.raises(
        UserError, match=r"configuration: qqqq: unknown key; known keys are additional_imports"
    ):
        compose_config("t", ["+qqqq=1"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("exp.fold=every", r"exp\.fold: expected int or one of \['all'\], found 'every'"),
        ("exp.fold=1.5", r"exp\.fold: expected int or one of \['all'\], found 1.5"),
        ("exp.tag=true", r"exp\.tag: expected str, found True"),
        ("exp=3", "exp: expected an object, found int"),
        ("prep.check=no_idea", r"prep\.check: expected bool, found 'no_idea'"),
        (
            "train.mode=again",
            r"train\.mode: expected one of \['auto', 'resume', 'overwrite'\], found 'again'",
        ),
        ("plan_cfg.spacing=[1.0,2.0]", r"plan_cfg\.spacing: expected 3 values, found 2"),
        ("plan_cfg.num_folds=1", "num_folds must be at least 2, found 1"),
        ("trainer_cfg.save_every=soon", r"trainer_cfg\.save_every: expected int, found 'soon'"),
        ("sweep.nested=5", r"sweep\.nested: expected bool, found 5"),
        ("sweep.trials=0", r"sweep\.trials must be at least 1, found 0"),
        (
            "inference_kwargs.batch_size=0",
            r"inference_kwargs\.batch_size must be null or at least 1, found 0",
        ),
        ("plan_overwrites=3", "plan_overwrites: expected an object, found int"),
        ("additional_imports=os", "additional_imports: expected a list, found str"),
    ],
)
def test_every_value_is_checked_when_composed(override, message):
    with pytest.raises(UserError, match=f"^configuration: {message}"):
        compose_config("t", [override])


def test_config_prints_every_key_with_its_meaning(capsys):
    assert command.main(["-o", "train=nodeseg", "plan_cfg.num_folds=3"]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text) == to_plain(compose_config("TASK", ["train=nodeseg", "plan_cfg.num_folds=3"]))
    lines = text.splitlines()
    place = lines.index("  num_folds: 3")
    assert lines[place - 1].startswith("  # folds of the cross-validation")
    keys = [i for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")]
    assert all(lines[i - 1].lstrip().startswith("#") for i in keys)  # none is left unexplained
    assert command.main(["--presets"]) == 0
    assert "psma25d_xu2023" in capsys.readouterr().out


def test_texts_come_from_the_docstring_of_the_class_and_its_bases():
    texts = attribute_texts(DetectorOptions)
    assert texts["seed"] == "of folds, training and bootstrap."
    assert texts["channels"].startswith('"voters" trains one detector per HU window')
    assert texts["channels"].endswith("all windows as channels.")


def test_overrides_in_hydras_grammar():
    config = compose_config(
        "t",
        ["exp.tag=_b", "plan=OTHER", "+plan_overwrites.detector.scale=2.5", "plan_cfg.quantiles=[1.0,2.0]",
         "train=psma25d", "~trainer_cfg.save_every"],
    )  # fmt: skip
    assert config.exp.id == "MaskRCNN25D_OTHER_b"
    assert config.plan_overwrites == {"detector": {"scale": 2.5}}
    assert config.plan_cfg.quantiles == [1.0, 2.0]
    assert (
        config.trainer_cfg.save_every == TrainerSettings().save_every
    )  # what is taken away is as by default


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("sweep.criterion=sensitivity@fp=4", "sensitivity@fp=4"),  # as the error message lists it
        ("sweep.criterion='precision@sensitivity=0.8'", "precision@sensitivity=0.8"),
        ('sweep.criterion="sensitivity@precision=.3"', "sensitivity@precision=.3"),
        ("sweep.criterion=f1", "f1"),
    ],
)
def test_value_with_an_equals_sign(override, value):
    assert compose_config("t", [override]).sweep.criterion == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("nonsense", "Error parsing override 'nonsense'"),
        ("foo=1", "Could not override 'foo'; found foo=1"),
        ("trainer_cfg.iterationz=3", "Could not override 'trainer_cfg.iterationz'"),
        ("plan_overwrites.detector.scale=2", r"use \+plan_overwrites\.detector\.scale=2"),
        ("train=unknown", "Could not find 'train/unknown'"),
        ("plan_cfg.quantiles=[1,", "no viable alternative"),
        ("exp.id=${nowhere}", "Interpolation key 'nowhere' not found"),
        ("=3", "override is wrong"),
        ("host=nndet", "unknown host 'nndet'; expected one of embedded, nnunet"),
        ("additional_imports=[no_such_module]", "additional_imports: no_such_module cannot be imported"),
    ],
)
def test_wrong_override(override, message):
    with pytest.raises(UserError, match=message) as caught:
        compose_config("t", [override])
    assert "\n" not in str(caught.value)


def test_additional_imports_are_imported(tmp_path, monkeypatch):
    (tmp_path / "my_plugin_for_test.py").write_text("import os\nos.environ['MY_PLUGIN'] = 'yes'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MY_PLUGIN", "no")
    compose_config("t", ["additional_imports=[my_plugin_for_test]"])
    import os

    assert os.environ["MY_PLUGIN"] == "yes"


def test_second_o_adds_to_the_first():
    """argparse would drop the first -o without a word."""
    parser = argparse.ArgumentParser()
    add_overwrites(parser)
    assert parser.parse_args(["-o", "a=1", "b=2", "-o", "c=3"]).overwrites == ["a=1", "b=2", "c=3"]
    assert parser.parse_args([]).overwrites == []  # and the default is not the list of the call before


def test_unknown_presets_are_told_the_known_ones():
    with pytest.raises(
        UserError, match=r"train=nodeseg or nodeseg_dwi2022 or nodestatus .* or psma25d .* or retina3d"
    ):
        compose_config("t", ["train=retina"])


def test_training_before_planning_tells_the_plans_there_are(in_task, capsys):
    from nndet_psma.cli.train import main

    assert main(["900", "-o", "train=retina3d"]) == 2
    told = capsys.readouterr().err
    assert "no plan 'RETINA3D'" in told
    assert "found PSMA25D" in told
    assert "with the same -o train=" in told
