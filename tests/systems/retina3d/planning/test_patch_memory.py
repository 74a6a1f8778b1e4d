"""Layers of the 3D detector counted by hand and on the real network."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from math import prod

import pytest
from places import REPOSITORY

from nndet_psma.planners.training_memory import Training
from nndet_psma.systems.retina3d.planning.layers import (
    PatchNetwork,
    network_layers,
    patch_flops,
    patch_parameters,
)
from nndet_psma.systems.retina3d.planning.memory import (
    activation_bytes_3d,
    estimate_patch_memory,
    temporary_bytes_3d,
)
from nndet_psma.systems.retina3d.planning.network import Topology

FOLDER = REPOSITORY / "benchmarks"
TWO_STAGES = Topology([(1, 1, 1), (1, 2, 2)], [(1, 3, 3), (3, 3, 3)])
SMALL = PatchNetwork(TWO_STAGES, [4, 8], [1], 8, 16, inputs=2, classes=1, anchors=3, segmentation_head=True)


@pytest.fixture(scope="module")
def bench():
    """``benchmarks/patch_memory.py``, which is no package."""
    sys.path.insert(0, str(FOLDER))
    spec = spec_from_file_location("patch_memory_benchmark", FOLDER / "patch_memory.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(FOLDER))


def test_parameters_by_hand() -> None:
    """Two stages of 4 and 8 channels, kernels of 9 and 27 voxels; a convolution has a bias, a norm an affine pair.

    Encoder: 9*2*4 + 3*4 = 84, 9*4*4 + 12 = 156, 27*4*8 + 24 = 888, 27*8*8 + 24 = 1752: 2880.
    Pyramid from stage 1 on: 8*8 + 8 = 72 and 27*8*8 + 8 = 1736: 1808. Heads of 16: 27*8*16 + 48 = 3504 and
    27*16*16 + 48 = 6960, twice: 20928; predictors 27*16*3 + 3 = 1299 and 27*16*18 + 18 = 7794.
    Segmentation 8 + 1 = 9; one factor for one level.
    """
    assert patch_parameters(SMALL) == 2880 + 1808 + 20928 + 1299 + 7794 + 9 + 1
    assert patch_parameters(replace(SMALL, segmentation_head=False)) == patch_parameters(SMALL) - 9


def test_flops_by_hand() -> None:
    """Per voxel and forward; stage 1 has a quarter of the cells.

    First convolution 2*72 = 144, trained twice since images need no gradient; 2*144 = 288; the rest on a quarter of
    the cells: weights 864 + 1728 + 64 + 1728 + 2*(3456 + 6912) + 1296 + 7776 + 8 = 34200, so 2 * 34200 / 4 = 17100.
    """
    assert patch_flops(SMALL, 10) == pytest.approx(10 * (2 * 144 + 3 * (288 + 17100)))


def test_activations_by_hand() -> None:
    """Values per voxel: image 2; stage 0: 2 * (4 + 4) = 16; on a quarter of the cells: stage 1 2 * (8 + 8) = 32,
    pyramid 2 * 8 = 16, heads 2 * 2 * 2 * 16 = 128, deltas 3 * 6 = 18: 194 / 4 = 48.5. In all 66.5 of 4 bytes.
    """
    assert activation_bytes_3d(SMALL, 100, 2) == pytest.approx(200 * 66.5 * 4)
    # mixed: 2 bytes each, but GroupNorm's 4 layers of 16 keep 10 bytes a channel: (130 * 2 - 128 + ...) by parts
    values = 2 + 16 + (32 + 16 + 18) / 4
    assert activation_bytes_3d(SMALL, 100, 2, mixed=True) == pytest.approx(200 * (values * 2 + 64 * 10 / 4))


def test_temporaries_are_the_larger_phase() -> None:
    # anchors: 3 on a quarter of the cells, 150 bytes: 112.5 a voxel; finest stage: 2 tensors of 4 channels: 32
    assert temporary_bytes_3d(SMALL, 100, 2) == pytest.approx(200 * 112.5)
    wide = replace(SMALL, widths=[64, 8])
    assert temporary_bytes_3d(wide, 100, 2) == pytest.approx(200 * 512)


def test_parts_of_the_estimate() -> None:
    found = estimate_patch_memory(SMALL, 1e6, 2)
    weights = patch_parameters(SMALL) * 4 / 1e9
    assert (found.weights, found.gradients, found.optimizer, found.averaged) == (weights, weights, weights, 0)
    assert found.images == pytest.approx(2 * 3 * 4e6 / 1e9)  # two channels and the mask
    assert found.fragmentation == pytest.approx(0.1 * (found.activations + found.temporaries))
    cpu = estimate_patch_memory(SMALL, 1e6, 2, Training("adamw", averaged=True), device="cpu")
    assert (cpu.context, cpu.workspace, cpu.fragmentation) == (0, 0, 0)
    assert (cpu.optimizer, cpu.averaged) == (2 * weights, weights)
    several = estimate_patch_memory(SMALL, 1e6, 2, Training(precision="bf16", gpus=2))
    assert (several.weights, several.gradients) == (1.5 * weights, 2 * weights)


CASES = [
    ((8, 32, 32), {}, 2, 1),
    ((16, 32, 32), {"spacing": (1.0, 1.0, 1.0), "levels": [1, 2], "segmentation": False}, 1, 3),
    (
        (16, 64, 64),
        {"spacing": (4.0, 1.0, 1.0), "levels": [1, 2, 3], "start": 8, "fpn": 16, "shapes": 1},
        3,
        2,
    ),
]


@pytest.mark.parametrize(("patch", "changes", "channels", "classes"), CASES)
def test_the_real_network_agrees(bench, patch, changes, channels, classes) -> None:
    """Parameters exactly, what is kept up to the statistics of the norms; mixed precision adds weights in 16 bit."""
    from nndet_psma.systems.retina3d.network import build_retinanet3d

    detector = bench.patch_detector(patch, **changes)
    network = bench.network_of(detector, channels, classes)
    model = build_retinanet3d(detector, channels, classes)
    parameters = sum(p.numel() for p in model.parameters())
    assert patch_parameters(network) == parameters
    voxels = prod(detector.patch_size)
    kept = bench.kept_bytes(detector, channels, classes)
    assert activation_bytes_3d(network, voxels, 1) == pytest.approx(kept, rel=0.01)
    mixed = bench.kept_bytes(detector, channels, classes, mixed=True) - 2 * parameters
    assert activation_bytes_3d(network, voxels, 1, mixed=True) == pytest.approx(mixed, rel=0.03)


def test_flops_of_the_real_network(bench) -> None:
    """Forward FLOPs of encoder, pyramid and heads as PyTorch counts them."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from nndet_psma.systems.retina3d.network import build_retinanet3d

    detector = bench.patch_detector((8, 32, 32))
    model = build_retinanet3d(detector, 2, 1)
    with FlopCounterMode(display=False) as counter:
        maps = model.pyramid(model.encoder(torch.zeros(1, 2, *detector.patch_size)))
        model.heads(maps)
        model.segmentation(maps[0])
    layers = network_layers(bench.network_of(detector, 2))
    ours = prod(detector.patch_size) * sum(layer.flops for layer in layers)
    assert counter.get_total_flops() == pytest.approx(ours, rel=1e-6)


def test_the_peak_of_a_real_step(bench) -> None:
    """What a step on the CPU allocates, gradients included, within a tenth."""
    detector = bench.patch_detector((16, 48, 48))
    network, voxels = bench.network_of(detector, 2), prod(detector.patch_size)
    _, peak, _ = bench.real_step(detector, 2, 2)
    estimate = activation_bytes_3d(network, voxels, 2) + temporary_bytes_3d(network, voxels, 2)
    assert estimate + 4 * patch_parameters(network) == pytest.approx(peak, rel=0.1)
