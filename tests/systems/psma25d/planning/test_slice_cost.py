"""FLOPs and seconds of a step on slices: by hand, as PyTorch counts them, published and measured step times."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import REPOSITORY

from nndet_psma.artifacts.plan import Target
from nndet_psma.systems.psma25d.planning.cost import STAGE_FLOPS, image_flops, step_seconds
from nndet_psma.systems.psma25d.planning.memory import BACKBONES, Network
from nndet_psma.trainers.cost.devices import CPU_CORE, Device, gpu_for

FOLDER = REPOSITORY / "benchmarks"
SLOW = Device("test", 0.001, 0.5, 1.0, 0.01, 0.1, 3.0, "nowhere")  # 1 GFLOPS


@pytest.fixture(scope="module")
def bench():
    """``benchmarks/training_cost.py``, which is no package."""
    sys.path.insert(0, str(FOLDER))
    spec = spec_from_file_location("training_cost", FOLDER / "training_cost.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(FOLDER))


def test_flops_by_hand():
    """ResNet-18, two levels, 16 channels, a head of 64, one anchor, 100 x 100 pixels, ten boxes of one class.

    Per pixel: stem 4704 twice (no gradient for images); layers 18432 + 16384 = 34816 three times.
    Heads, three times: 1x1 convolutions 2 x 64 x 16 on 1/16 cells and 2 x 128 x 16 on 1/64 = 192 per pixel; two 3x3
    convolutions 2 x 2 x 9 x 16 x 16 = 9216 and predictors 2 x 16 x 5 = 160, both on 5/64 cells: 732.5.
    Per box 2 x (49 x 16 x 64 + 64 x 64 + 5 x 2 x 64) = 109824.
    """
    network = Network("resnet18", "batch", (1, 2), 16, 64, 3, 1, 1, 10)
    flops = image_flops(network, 10_000, 1000)
    assert flops.backbone == 10_000 * (2 * 4704 + 3 * 34816)
    assert flops.heads == 3 * (10_000 * (192 + 732.5) + 10 * 109824)
    assert flops.total == flops.backbone + flops.heads
    assert image_flops(network, 10_000, 4).heads == 3 * (10_000 * (192 + 732.5) + 4 * 109824)
    six = image_flops(replace(network, channels=6), 10_000, 1000)
    assert six.backbone - flops.backbone == 10_000 * 2 * 4704


@pytest.mark.parametrize("backbone", ["resnet18", "resnext50_32x4d"])
def test_table_is_what_pytorch_counts(bench, backbone):
    assert tuple(bench.measured_stage_flops(backbone)) == STAGE_FLOPS[backbone]


def test_table_knows_the_backbones_of_the_memory_model():
    assert tuple(STAGE_FLOPS) == BACKBONES


@pytest.mark.parametrize(
    "changes",
    [
        {"levels": [1, 2], "fpn_channels": 32, "head_channels": 64, "roi_samples": 20},
        {"fpn_channels": 64, "head_channels": 64, "roi_samples": 20},
    ],
)
def test_a_real_step_takes_these_flops(bench, changes):
    """Of forward and backward on the CPU, counted by PyTorch; ResNet only, see ``counted_flops``."""
    det = bench.network("resnet18", 128, 192, proposals_train=100, **changes)
    estimate = 2 * image_flops(bench.network_of(det), 128 * 192, 100).total
    assert estimate == pytest.approx(bench.counted_flops(det, 2), rel=0.002)


def test_seconds_by_hand():
    """Backbone 2 GFLOP at half of 1 GFLOPS, heads 3 at 1: 7 s; an image 1 s, 20 proposals 0.2 s, 10 boxes x 4 channels
    x 0.1 = 4 s; two images; 3 s per step."""
    network = Network("resnext50_32x4d", "frozen", (1,), 4, 1, roi_samples=10)
    flops = image_flops(network, 1000, 20)
    backbone, heads = flops.backbone / 1e9, flops.heads / 1e9
    seconds = step_seconds(network, 1000, 2, 20, SLOW)
    assert seconds == pytest.approx(3 + 2 * (backbone / 0.5 + heads + 1 + 0.2 + 4))
    plain = replace(network, backbone="resnet50")
    flops = image_flops(plain, 1000, 20)
    assert step_seconds(plain, 1000, 2, 20, SLOW) == pytest.approx(3 + 2 * (flops.total / 1e9 + 5.2))


@given(cores=st.integers(1, 64), pixels=st.integers(10_000, 10**6), backbone=st.sampled_from(BACKBONES))
def test_more_cores_take_less_time_and_more_pixels_more(cores, pixels, backbone):
    network = Network(backbone)
    here = step_seconds(network, pixels, 4, 1000, CPU_CORE, cores)
    assert step_seconds(network, pixels, 4, 1000, CPU_CORE, cores + 1) < here
    assert step_seconds(network, pixels + 100, 4, 1000, CPU_CORE, cores) > here


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101", "resnext101_32x8d"])
def test_published_steps_on_a_v100_are_met(bench, backbone):
    estimate = bench.published_estimate(backbone, gpu_for(Target("gpu", 16.0)))
    assert estimate == pytest.approx(bench.PUBLISHED[backbone], rel=0.1)


def test_the_demonstration_on_two_cores_is_met():
    """Its step (four slices of 152 x 184) took 0.144 to 0.152 s on two cores of a Xeon with AVX-512."""
    network = Network("resnet18", "batch", (1, 2), 64, 128, 3, 1, 6, 32)
    assert step_seconds(network, 152 * 184, 4, 100, CPU_CORE, 2) == pytest.approx(0.148, rel=0.1)
