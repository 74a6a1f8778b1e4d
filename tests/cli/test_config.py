"""The configuration: what -o may say, and what it is told when it is wrong."""

from __future__ import annotations

import argparse

import pytest
import yaml

from nndet_psma.artifacts.run_config import InferenceConfig, PrepConfig, SweepConfig
from nndet_psma.cli import config as command
from nndet_psma.cli.arguments import add_overwrites
from nndet_psma.cli.config import compose_config, presets
from nndet_psma.cli.config_text import attribute_texts
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import to_plain
from nndet_psma.planners.detector_options import DetectorOptions
from nndet_psma.trainers.settings import TrainerSettings


def test_defaults():
    config = compose_config("Task900_Tiny", [])
    assert config.exp.id == "MaskRCNN25D_PSMA25D"
    assert (config.exp.fold, config.host, config.sweep.criterion) == (0, "embedded", "auto")
    assert config.plan_overwrites == {}


def test_defaults_are_those_of_the_dataclasses():
    config = compose_config("t", [])
    assert config.plan_cfg == DetectorOptions()
    assert config.trainer_cfg == TrainerSettings()
    assert (config.sweep, config.prep, config.inference_kwargs) == (
        SweepConfig(),
        PrepConfig(),
        InferenceConfig(),
    )


@pytest.mark.parametrize("preset", presets())
def test_every_preset_composes(preset):
    config = compose_config("Task007_X", [f"train={preset}"])
    assert (config.task, config.system) == ("Task007_X", presets()[preset])
    assert config.exp.id == f"{config.module}_{config.plan}"


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("exp.fol=1", "exp.fold"),
        ("prep.chek=false", "prep.check"),
        ("train.mod=auto", "train.mode"),
        ("trainer_cfg.iteration=3", "trainer_cfg.iterations"),
        ("plan_cfg.windwos=null", "plan_cfg.windows"),
        ("sweep.criteron=f1", "sweep.criterion"),
        ("inference_kwargs.devise=cpu", "inference_kwargs.device"),
        ("modul=X", "module"),
    ],
)
def test_an_unknown_key_names_the_nearest(override, nearest):
    with pytest.raises(UserError, match=f"expected {nearest};"):
        compose_config("t", [override])
    with pytest.raises(UserError, match=f"unknown key; did you mean {nearest.rpartition('.')[2]}"):
        compose_config("t", [f"+{override}"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("exp.fold=1.5", r"exp.fold: expected int or one of \['all'\], found 1.5"),
        ("prep.check=maybe", "prep.check: expected bool, found 'maybe'"),
        ("sweep.trials=0", "trials must be at least 1, found 0"),
        ("sweep.nested=5", "sweep.nested: expected bool, found 5"),
        ("inference_kwargs.batch_size=0", "batch_size must be null or at least 1"),
        ("plan_cfg.num_folds=1", "num_folds must be at least 2"),
        ("~planner", "planner: missing key"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(override, message):
    with pytest.raises(UserError, match=message):
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
    assert config.trainer_cfg.save_every == TrainerSettings().save_every


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
        ("foo=1", r"Could not override 'foo'\. To append to your config use \+foo=1"),
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
    with pytest.raises(UserError, match=r"train=nodeseg or nodeseg_dwi2022 or psma25d .* or retina3d"):
        compose_config("t", ["train=retina"])


def test_training_before_planning_tells_the_plans_there_are(in_task, capsys):
    from nndet_psma.cli.train import main

    assert main(["900", "-o", "train=retina3d"]) == 2
    told = capsys.readouterr().err
    assert "no plan 'RETINA3D'" in told
    assert "found PSMA25D" in told
    assert "with the same -o train=" in told
