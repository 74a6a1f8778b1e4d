"""The configuration: what -o may say, and what it is told when it is wrong."""

from __future__ import annotations

import argparse

import pytest

from nndet_psma.cli.arguments import add_overwrites
from nndet_psma.cli.config import compose_config, plain
from nndet_psma.core.errors import UserError
from nndet_psma.planners.detector_options import DetectorOptions
from nndet_psma.trainers.settings import TrainerSettings


def test_defaults():
    config = compose_config("Task900_Tiny", [])
    assert config.exp.id == "MaskRCNN25D_PSMA25D"
    assert (config.exp.fold, config.host, config.sweep.criterion) == (0, "embedded", "auto")
    assert plain(config.plan_overwrites) == {}


def test_defaults_of_files_and_code_agree():
    """The yaml repeats the dataclasses' defaults so that users see them; they must not drift apart."""
    config = compose_config("t", [])
    assert DetectorOptions.parse(plain(config.plan_cfg)) == DetectorOptions()
    assert TrainerSettings.parse(plain(config.trainer_cfg)) == TrainerSettings()


def test_overrides_in_hydras_grammar():
    config = compose_config(
        "t",
        ["exp.tag=_b", "plan=OTHER", "+plan_overwrites.detector.scale=2.5", "plan_cfg.quantiles=[1.0,2.0]",
         "train=psma25d", "+extra=3", "~trainer_cfg.save_every"],
    )  # fmt: skip
    assert config.exp.id == "MaskRCNN25D_OTHER_b"
    assert plain(config.plan_overwrites) == {"detector": {"scale": 2.5}}
    assert plain(config.plan_cfg.quantiles) == [1.0, 2.0]
    assert config.extra == 3
    assert "save_every" not in config.trainer_cfg


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
