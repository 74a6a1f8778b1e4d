"""Grad-CAM: a network worked out by hand, the definition beside the library, and where the map lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from crop_plan import crop_plan, flat
from torch import nn

from nndet_psma.artifacts.classifier_plan import ClassifierNetwork
from nndet_psma.inference.classifying import CropEnsemble
from nndet_psma.inference.grad_cam import class_map, grad_cam, map_layer
from nndet_psma.trainers.classifier.network import CropClassifier
from nndet_psma.trainers.networks.weights import write_model


class ByHand(nn.Module):
    """Two maps, the image times 2 and times -1, and their means; the positive class is 3 of one and 4 of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(1, 2, 1, bias=False)
        self.head = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.maps.weight.copy_(torch.tensor([2.0, -1.0]).reshape(2, 1, 1, 1))
            self.head.weight.copy_(torch.tensor([[9.0, 9.0], [3.0, 4.0]]))

    def forward(self, images):
        return self.head(self.maps(images).mean((2, 3)))


def test_a_network_worked_out_by_hand():
    """Of 4 places each map weighs 3/4 and 4/4: relu(3/4 * 2 v - 1 * v) = relu(v / 2)."""
    image = torch.tensor([[[[2.0, -4.0], [0.0, 6.0]]]])
    assert class_map(ByHand(), image, "maps") == pytest.approx(np.array([[1.0, 0.0], [0.0, 3.0]]))


def _plan(kind="resnet", dimension="3d", side=16):
    widths = [4, 4, 4, 4] if kind == "resnet" else [2, 2, 2, 2, 2]
    size = (1 if dimension == "2d" else side, side, side)
    plan = flat(crop_plan(), size=size, margin=(0, 0, 0), dimension=dimension)
    return replace(plan, network=ClassifierNetwork(kind, widths, 0.0, 0.0))


def _module(model, name):
    return dict(model.named_modules())[name]


@pytest.mark.parametrize(
    ("kind", "side", "layer"),
    [
        ("resnet", 16, "trunk.layer2"), ("resnet", 32, "trunk.layer3"), ("resnet", 64, "trunk.layer4"),
        ("resnet", 8, "trunk.layer1"), ("vgg16conv", 16, "trunk.9"), ("vgg16conv", 48, "trunk.14"),
    ],
)  # fmt: skip
def test_the_deepest_layer_that_tells_places_apart(kind, side, layer):
    """Maps of a residual network: half, a quarter, ...; of the other: whole, half, a quarter, ... At least 4 places."""
    plan = _plan(kind, "2.5d", side)
    assert map_layer(plan) == layer
    model, seen = CropClassifier(plan, plan.stages[0]).eval(), []
    _module(model, layer).register_forward_hook(lambda module, given, found: seen.append(found.shape))
    model(torch.zeros(1, plan.channels(plan.stages[0]), side, side))
    assert min(seen[0][2:]) >= 4


@pytest.mark.parametrize("dimension", ["2d", "2.5d", "3d"])
def test_the_definition(dimension, tmp_path):
    """Mean gradients of the positive class times maps, summed, negative parts cut off, of two networks; to 1e-5."""
    plan = _plan("resnet", dimension, 8)
    stage = plan.stages[0]
    generator = np.random.default_rng(0)
    ct = generator.integers(-90, 90, plan.crop.stored).astype(np.int16)
    codes = np.full(ct.shape, 3, np.uint8)
    files, models = [], []
    for seed in range(2):
        torch.manual_seed(seed)
        models.append(CropClassifier(plan, stage).eval())
        files.append(tmp_path / f"{seed}.safetensors")
        write_model(models[-1], files[-1])
    ensemble = CropEnsemble(plan, {stage.name: files}, torch.device("cpu"), 4)
    found = grad_cam(ensemble, ct, codes)

    from nndet_psma.trainers.classifier.views import crop_channels

    images = torch.from_numpy(crop_channels(ct, codes, plan, stage))[None]
    expected = []
    for model in models:
        kept = []
        _module(model, map_layer(plan)).register_forward_hook(
            lambda module, given, out, kept=kept: kept.append(out)
        )
        logits = model(images)
        maps = kept[-1]
        [gradient] = torch.autograd.grad(logits[0, 1], maps)
        axes = tuple(range(2, maps.ndim))
        coarse = torch.relu((gradient.mean(axes, keepdim=True) * maps).sum(1, keepdim=True)).detach()
        mode = "trilinear" if maps.ndim == 5 else "bilinear"
        expected.append(nn.functional.interpolate(coarse, size=images.shape[2:], mode=mode)[0, 0].numpy())
    central = len(found) // 2
    where = found if dimension == "3d" else found[central]
    assert where == pytest.approx(np.mean(expected, axis=0), abs=1e-5)
    if dimension != "3d":
        assert not np.delete(found, central, axis=0).any()  # slices have one map, on the central one
