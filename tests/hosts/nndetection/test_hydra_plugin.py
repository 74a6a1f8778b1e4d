from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

import hydra_plugins
from hydra_plugins.nndet_psma_searchpath import NNDETECTION, OURS, NNDetectionPSMASearchPath
from nndet_psma.hosts.nndetection.handover import PRESETS
from nndet_psma.hosts.nndetection.launch import PLUGIN

CONF = files("nndet_psma.hosts.nndetection.conf")


def paths_after(*main):
    path = ConfigSearchPathImpl()
    path.append("hydra", "pkg://hydra.conf")
    for place in main:
        path.append("main", place)
    NNDetectionPSMASearchPath().manipulate_search_path(path)
    return [element.path for element in path.get_path()]


def test_our_folder_comes_behind_nndetections():
    assert paths_after(NNDETECTION) == ["pkg://hydra.conf", NNDETECTION, OURS]


def test_other_programs_are_left_alone():
    assert paths_after("pkg://nndet_psma.conf") == ["pkg://hydra.conf", "pkg://nndet_psma.conf"]
    assert paths_after("pkg://somebody.conf") == ["pkg://hydra.conf", "pkg://somebody.conf"]


def test_hydra_finds_the_plugin_by_itself():
    found = Plugins.instance().discover(SearchPathPlugin)
    assert "NNDetectionPSMASearchPath" in {cls.__name__ for cls in found}


def test_the_namespace_is_shared():
    """With an __init__.py the plugins of every other distribution would vanish."""
    assert not any((Path(folder) / "__init__.py").is_file() for folder in hydra_plugins.__path__)


@pytest.mark.parametrize("name", PRESETS.values())
def test_every_preset_has_a_file_that_loads_the_plugin(name):
    text = (CONF / "train" / f"{name}.yaml").read_text()
    assert text.startswith("# @package __global__\n")
    content = yaml.safe_load(text)
    assert content["defaults"] == ["v001", "_self_"]
    assert PLUGIN in content["additional_imports"]


@pytest.mark.parametrize("name", PRESETS.values())
def test_genuine_nndetection_composes_and_finds_our_classes(nndetection, name):
    """Without any search path on the command line; every class the configuration names is registered."""
    from importlib import import_module

    from hydra import compose, initialize_config_module
    from nndet.io.datamodule import DATALOADER_REGISTRY
    from nndet.planning import PLANNER_REGISTRY
    from nndet.ptmodule import MODULE_REGISTRY

    with initialize_config_module("nndet.conf", version_base="1.1"):
        config = compose("config.yaml", overrides=[f"train={name}"])
    import_module(PLUGIN)
    planner = PLANNER_REGISTRY[config.planner]
    assert planner.__module__.startswith("nndet_psma.")
    assert MODULE_REGISTRY[config.module].__module__.startswith("nndet_psma.")
    assert config.plan.startswith(planner.__name__)
    dim = 2 if "25d" in name else 3
    assert DATALOADER_REGISTRY[config.augment_cfg.dataloader.format(dim)]
    assert config.trainer_cfg.max_num_epochs > 0  # nnDetection's own keys are there
