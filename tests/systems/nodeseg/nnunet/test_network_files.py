"""nnU-Net imports and calls what plans.json names: a file that names anything else is refused before it is read on."""

from __future__ import annotations

import json
import pydoc
import sys

import pytest
from failing import fails
from hostile_networks import FULL, HOSTILE, changed
from segmentation_model import architecture, nnunet_dataset, nnunet_plans, write_segmentation_model
from segmentation_plan import segmentation_plan
from tiny_place import TASK

from nndet_psma import Predictor
from nndet_psma.cli import predict
from nndet_psma.core.errors import UserError
from nndet_psma.systems.nodeseg.nnunet.network_files import check_names, read_network_files

MODEL = "nnUNetTrainerNodeSeg_NodeSeg"
RESIDUAL = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"


def _write(folder, plans, dataset=None, plan=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset or nnunet_dataset(plan or segmentation_plan())))
    return folder


def _residual(plans):
    network = plans["configurations"][FULL]["architecture"]
    network["network_class_name"] = RESIDUAL
    network["arch_kwargs"]["n_blocks_per_stage"] = network["arch_kwargs"].pop("n_conv_per_stage")
    return plans


@pytest.mark.parametrize("change", [lambda plans: plans, _residual])
def test_what_our_planner_writes_is_handed_on(tmp_path, change):
    """Word for word, but for configurations of nnU-Net that were not trained and what only our planner reads."""
    plan = segmentation_plan()
    plans = change(nnunet_plans(plan))
    files = read_network_files(_write(tmp_path, plans), plan)
    assert files.plans == {**plans, "configurations": {FULL: plans["configurations"][FULL]}}
    assert files.dataset == {k: v for k, v in nnunet_dataset(plan).items() if k != "nodeseg"}


def test_a_lowres_configuration_may_name_its_cascade(tmp_path):
    plan = segmentation_plan(configuration="3d_lowres")
    plans = nnunet_plans(plan)
    plans["configurations"]["3d_lowres"]["next_stage"] = "3d_cascade_fullres"
    found = read_network_files(_write(tmp_path, plans), plan).plans["configurations"]
    assert "next_stage" not in found["3d_lowres"]


def test_two_axes(tmp_path):
    plan = segmentation_plan(configuration="2d", patch_size=(32, 32))
    plans = nnunet_plans(plan)
    flat = plans["configurations"]["2d"]
    flat["spacing"] = [2.0, 2.0]
    arguments = flat["architecture"]["arch_kwargs"]
    arguments["conv_op"] = "torch.nn.modules.conv.Conv2d"
    arguments["norm_op"] = "torch.nn.modules.instancenorm.InstanceNorm2d"
    arguments["kernel_sizes"], arguments["strides"] = [[3, 3]] * 2, [[1, 1], [2, 2]]
    assert list(read_network_files(_write(tmp_path, plans), plan).plans["configurations"]) == ["2d"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(tmp_path, monkeypatch, name):
    (place, changes), message = HOSTILE[name]
    monkeypatch.setattr(pydoc, "locate", lambda path: pytest.fail(f"imports {path}"))
    plans, dataset = changed(segmentation_plan(), place, changes)
    with pytest.raises(UserError, match="holds what this package does not write") as caught:
        read_network_files(_write(tmp_path, plans, dataset), segmentation_plan())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "Dataset901_Other"}, "dataset_name of nnU-Net's files is not the plan's"),
        ({"plan_id": "Other"}, "plans_name of"),
        ({"features": [8, 32]}, "features_per_stage of"),
        ({"patch_size": (8, 32, 64)}, "patch_size of"),
        ({"classes": {"0": "node", "1": "bone"}}, "labels of"),
        ({"configuration": "3d_lowres"}, "has no configuration 3d_lowres"),
    ],
)
def test_files_of_another_plan(tmp_path, change, message):
    _write(tmp_path, nnunet_plans(segmentation_plan()))
    with pytest.raises(UserError, match=message):
        read_network_files(tmp_path, segmentation_plan(**change))


@pytest.mark.parametrize("content", ["[]", "7", '{"configurations": []}', "{", "null"])
def test_no_plans_at_all(tmp_path, content):
    _write(tmp_path, {})
    (tmp_path / "plans.json").write_text(content)
    with pytest.raises(UserError, match=r"plans\.json"):
        read_network_files(tmp_path, segmentation_plan())


@pytest.mark.parametrize("key", ["plan_id", "trainer", "dataset", "configuration"])
@pytest.mark.parametrize("value", ["../x", "/etc", "a/b", "", ".."])
def test_names_stay_inside_the_model(tmp_path, key, value):
    with pytest.raises(UserError, match=f"the plan's {key} is no name"):
        check_names(segmentation_plan(**{key: value}), tmp_path / "plan.json")


def test_a_model_folder_is_checked_before_it_predicts(raw_place, tmp_path, monkeypatch, capsys):
    """A module that would be importable stays unimported, from the command line and from Python."""
    place = raw_place.copy(tmp_path)
    place.enter(monkeypatch)
    folder = write_segmentation_model(place.models / TASK / MODEL, folds=[0])
    (tmp_path / "evil_module.py").write_text("raise SystemExit('run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    file = next(folder.root.rglob("plans.json"))
    plans = json.loads(file.read_text())
    plans["configurations"][FULL]["architecture"] = {
        **architecture([4, 8]),
        "network_class_name": "evil_module.Network",
    }
    file.write_text(json.dumps(plans))
    fails(capsys, predict.main, ["900", MODEL], str(file), "network_class_name: expected one of")
    with pytest.raises(UserError, match="network_class_name"):
        Predictor.from_folder(folder.root, "cpu")
    assert "evil_module" not in sys.modules
