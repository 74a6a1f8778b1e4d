"""Backbone: more input channels at equal response, norms, and weights that cannot be had or do not fit."""

from __future__ import annotations

import pickle
from dataclasses import replace
from urllib.error import URLError

import pytest
import torch
from small_detector import small_detector
from torch import nn
from torchvision.models import resnet18
from torchvision.models._api import WeightsEnum

from nndet_psma.core.errors import UserError
from nndet_psma.systems.psma25d.backbone import build_backbone, widen_input
from nndet_psma.trainers.networks.norms import FrozenBatchNorm


@pytest.mark.parametrize("channels", [1, 3, 5, 9])
def test_widened_convolution_responds_to_grey_as_before(channels):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, kernel_size=7, stride=2, padding=3, bias=True)
    grey = torch.rand(2, 1, 20, 22)
    widened = widen_input(conv, channels)
    assert widened.weight.shape == (8, channels, 7, 7)
    before, after = conv(grey.expand(-1, 3, -1, -1)), widened(grey.expand(-1, channels, -1, -1))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


def test_same_number_of_channels_keeps_colour_filters():
    conv = nn.Conv2d(3, 8, kernel_size=7)
    assert widen_input(conv, 3) is conv


@pytest.mark.parametrize(
    ("norm", "kind"), [("batch", nn.BatchNorm2d), ("frozen", FrozenBatchNorm), ("group", nn.GroupNorm)]
)
def test_planned_norm_is_the_only_one(norm, kind):
    backbone = build_backbone(small_detector(norm=norm), channels=3)
    kinds = (nn.BatchNorm2d, FrozenBatchNorm, nn.GroupNorm)
    found = {type(module) for module in backbone.body.modules() if isinstance(module, kinds)}
    assert found == {kind}
    features = backbone(torch.rand(1, 3, 32, 32))
    assert [list(f.shape) for f in features.values()] == [[1, 16, 8, 8], [1, 16, 4, 4]]  # strides 4 and 8


def test_group_norm_groups_hold_eight_channels():
    backbone = build_backbone(small_detector(norm="group"), channels=3)
    first = next(m for m in backbone.body.modules() if isinstance(m, nn.GroupNorm))
    assert (first.num_groups, first.num_channels) == (8, 64)


def test_every_layer_is_trained():
    backbone = build_backbone(small_detector(), channels=4)
    assert all(parameter.requires_grad for parameter in backbone.parameters())


def test_unknown_backbone_lists_the_known():
    with pytest.raises(UserError, match=r"unknown backbone 'vgg16'.*resnet18.*resnext50_32x4d"):
        build_backbone(small_detector(backbone="vgg16"), channels=3)


@pytest.mark.parametrize(
    "failure", [URLError("no route to host"), OSError("timed out"), RuntimeError("hash")]
)
def test_no_network_for_imagenet(monkeypatch, failure):
    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    with pytest.raises(UserError) as caught:
        build_backbone(small_detector(weights="imagenet"), channels=3)
    text = str(caught.value)
    assert "ImageNet weights of resnet18 cannot be downloaded" in text
    assert "https://download.pytorch.org/models/resnet18" in text
    # the remedy must be typed with +, plan_overwrites is empty by default
    assert "-o +plan_overwrites.detector.weights=none" in text


@pytest.fixture(scope="module")
def resnet_state():
    torch.manual_seed(3)
    return resnet18(weights=None).state_dict()


def test_imagenet_weights_are_loaded_and_widened(monkeypatch, resnet_state):
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: resnet_state)
    body = build_backbone(small_detector(weights="imagenet"), channels=6).body
    torch.testing.assert_close(body["layer1"][0].conv1.weight, resnet_state["layer1.0.conv1.weight"])
    mean = resnet_state["conv1.weight"].mean(dim=1)
    torch.testing.assert_close(body["conv1"].weight[:, 4], mean / 2)  # six channels instead of three


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_local_weights(tmp_path, resnet_state, suffix):
    from safetensors.torch import save_file

    file = tmp_path / f"resnet{suffix}"
    save_file(resnet_state, file) if suffix == ".safetensors" else torch.save(resnet_state, file)
    body = build_backbone(small_detector(weights=str(file)), channels=3).body
    torch.testing.assert_close(body["conv1"].weight, resnet_state["conv1.weight"])


def test_local_weights_without_network_path(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.pth: weights file does not exist"):
        build_backbone(small_detector(weights=str(tmp_path / "nowhere.pth")), channels=3)


def test_local_weights_of_another_network(tmp_path, resnet_state):
    file = tmp_path / "other.pth"
    torch.save({**resnet_state, "conv1.weight": torch.zeros(32, 3, 7, 7)}, file)
    with pytest.raises(UserError, match=r"conv1\.weight \[32, 3, 7, 7\] instead of \[64, 3, 7, 7\]"):
        build_backbone(small_detector(weights=str(file)), channels=3)
    torch.save({"layer1.0.conv1.weight": resnet_state["layer1.0.conv1.weight"]}, file)
    with pytest.raises(UserError, match="hardly any layer of the backbone; found 1 of"):
        build_backbone(small_detector(weights=str(file)), channels=3)


def test_whole_detector_as_backbone_names_the_right_key(tmp_path):
    from nndet_psma.systems.psma25d.network import build_detector
    from nndet_psma.trainers.networks.weights import write_model

    file = tmp_path / "model.safetensors"
    write_model(build_detector(small_detector(), 3, 1), file)
    with pytest.raises(UserError, match=r"whole detector, not a backbone.*trainer_cfg\.start_weights"):
        build_backbone(small_detector(weights=str(file)), channels=3)


class _Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        from pathlib import Path

        return Path.touch, (self.target,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickle_is_not_run(tmp_path):
    file, trace = tmp_path / "evil.pth", tmp_path / "was_here"
    file.write_bytes(pickle.dumps({"conv1.weight": _Attack(trace)}))
    with pytest.raises(UserError, match=r"evil\.pth: weights cannot be read"):
        build_backbone(small_detector(weights=str(file)), channels=3)
    torch.save({"conv1.weight": _Attack(trace)}, file)
    with pytest.raises(UserError, match=r"evil\.pth: weights cannot be read"):
        build_backbone(small_detector(weights=str(file)), channels=3)
    assert not trace.exists()


def test_replace_keeps_checks():
    with pytest.raises(ValueError, match="3 levels but anchor sizes for 2"):
        replace(small_detector(), levels=[1, 2, 3])


@pytest.mark.parametrize(
    ("count", "kept"),
    [(0, set()), (1, {"conv1"}), (2, {"conv1", "layer1"}), (3, {"conv1", "layer1", "layer2"})],
)
def test_frozen_layers_keep_their_weights(count, kept):
    body = build_backbone(small_detector(norm="frozen", frozen_layers=count), channels=3).body
    assert {name.split(".")[0] for name, p in body.named_parameters() if not p.requires_grad} == kept


def test_frozen_layers_need_statistics_that_stay():
    with pytest.raises(ValueError, match="statistics of frozen layers would go on changing"):
        small_detector(frozen_layers=2)
    assert small_detector(norm="group", frozen_layers=2).frozen_layers == 2
