"""The memory tables of the planner against the network itself."""

from __future__ import annotations

import importlib.util

import pytest
from places import REPOSITORY

from nndet_psma.systems.psma25d.planning.memory import (
    _STAGE_PARAMETERS,
    activation_bytes,
    parameter_count,
    stage_bytes,
    temporary_bytes,
)

_FILE = REPOSITORY / "benchmarks" / "memory_model.py"


@pytest.fixture(scope="module")
def measure():
    spec = importlib.util.spec_from_file_location("memory_model", _FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("norm", ["batch", "frozen", "group"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnext50_32x4d"])
def test_activations_of_the_backbone(measure, backbone, norm):
    for mixed in (False, True):
        measured = measure.measured_stage_bytes(backbone, norm, mixed)
        assert stage_bytes(backbone, norm, mixed) == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize("backbone", ["resnet50", "resnext101_32x8d"])
def test_parameters(measure, backbone):
    from nndet_psma.systems.psma25d.network import build_detector

    assert list(_STAGE_PARAMETERS[backbone]) == measure.stage_parameters(backbone)
    det = measure.detector(backbone, "batch", mask_branch=True, levels=[1, 2, 3], anchor_sizes=[[8.0]] * 3)
    with measure.fake_gpu(False):
        model = build_detector(det, 9, 2)
        measured = sum(p.numel() for p in model.parameters())
    from nndet_psma.systems.psma25d.planning.memory import Network

    assert parameter_count(Network.of(det, channels=9, classes=2)) == pytest.approx(measured, rel=0.001)


@pytest.mark.parametrize("mixed", [False, True])
def test_pyramid_and_heads(measure, mixed):
    """Values per tensor element: 3 pyramid tensors; 49 pooled and 2 hidden layers; 5 x 14 x 14 + 28 x 28 of masks."""
    width = 2 if mixed else 4
    assert measure.pyramid_bytes(64, mixed) == pytest.approx(3 * width, rel=0.02)
    assert measure.roi_bytes(64, 128, mixed) == pytest.approx(width * (49 * 64 + 2 * 128), rel=0.02)
    assert measure.mask_bytes(64, mixed) == pytest.approx(width * 64 * (5 * 196 + 784), rel=0.02)


@pytest.mark.parametrize(
    ("backbone", "norm", "side", "images", "boxes"),
    [("resnet18", "batch", 160, 2, 64), ("resnet50", "frozen", 192, 2, 32)],
)
def test_real_step_keeps_and_peaks_as_estimated(measure, backbone, norm, side, images, boxes):
    det = measure.detector(
        backbone, norm, input_size=(side, side), roi_samples=boxes, fpn_channels=64, head_channels=64
    )
    kept, forward, _ = measure.real_step(det, images)
    net = measure.network_of(det)
    model = activation_bytes(net, side * side, images)
    assert model == pytest.approx(kept, rel=0.1)
    peak = model + temporary_bytes(net, side * side, images)
    assert (
        0.95 * forward <= peak <= 1.3 * forward
    )  # the three phases of temporaries are told apart roughly only


def test_kept_bytes_are_linear_in_pixels(measure):
    """Per pixel and image, of sizes 64 and 128: apart from statistics of norms the same."""
    det = [
        measure.detector(
            "resnet18", "frozen", input_size=(side, side), roi_samples=1, fpn_channels=16, head_channels=16
        )
        for side in (64, 128)
    ]
    small, large = (measure.real_step(d, 1)[0] for d in det)
    assert large == pytest.approx(4 * small, rel=0.02)
