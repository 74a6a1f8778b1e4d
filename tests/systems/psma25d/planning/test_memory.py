"""The memory model's arithmetic, its inverses, and the choice of network over machines."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nndet_psma.artifacts.plan import Target
from nndet_psma.core.errors import UserError
from nndet_psma.planners.training_memory import Training
from nndet_psma.systems.psma25d.planning.memory import (
    BACKBONES,
    LADDER,
    MIN_PIXELS,
    NORMS,
    Network,
    activation_bytes,
    choose_network,
    estimate_memory,
    max_images_for,
    max_pixels_for,
    parameter_count,
    stage_bytes,
    temporary_bytes,
)

NETWORKS = st.builds(
    Network,
    backbone=st.sampled_from(BACKBONES),
    norm=st.sampled_from(NORMS),
    levels=st.sampled_from([(1, 2), (1, 2, 3), (1, 2, 3, 4)]),
    fpn_channels=st.sampled_from([64, 256]),
    channels=st.integers(1, 21),
    roi_samples=st.sampled_from([32, 512]),
    mask_branch=st.booleans(),
)
TRAININGS = st.builds(
    Training,
    optimizer=st.sampled_from(["sgd", "adamw"]),
    precision=st.sampled_from(["no", "bf16", "fp16"]),
    averaged=st.booleans(),
    gpus=st.integers(1, 8),
)
SIDES = st.integers(128, 1400)


def _choose(memory, side=800, gpus=1, **changes):
    return choose_network(
        Target("gpu", memory), side * side, 1, replace(Network(), **changes), Training(gpus=gpus)
    )


def test_activations_by_hand():
    """ResNet-18, frozen, two levels, 3 channels, 10 boxes in a head of 64 on 16 FPN channels.

    Per pixel: stem 108 + layer1 80 + layer2 32 = 220, and 3 tensors x 16 channels x 4 bytes on 1/16 + 1/64 cells = 15.
    Per box: 49 x 16 pooled + 2 x 64 hidden values of 4 bytes = 3648.
    """
    net = Network("resnet18", "frozen", (1, 2), 16, 64, 3, 1, 6, 10)
    assert activation_bytes(net, 1000, 2) == pytest.approx(2 * (1000 * (220 + 15) + 10 * 3648))
    # six more input channels are kept once more by the first convolution: 24 bytes a pixel
    assert activation_bytes(replace(net, channels=9), 1000, 2) - activation_bytes(net, 1000, 2) == 2 * 24_000
    # masks for a quarter of the boxes: (5 x 14 x 14 + 28 x 28) x 16 values of 4 bytes
    masks = activation_bytes(replace(net, mask_branch=True), 1000, 1) - activation_bytes(net, 1000, 1)
    assert masks == 10 / 4 * (980 + 784) * 64


def test_temporaries_are_the_largest_phase():
    net = Network("resnet18", "frozen", (1, 2), 16, 64, 3, 1, 6, 10)
    # anchors 168 bytes x 6 x 5/64 cells = 78.75 a pixel; pyramid 3.5 x 64 / 16 = 14; boxes 10 x 49 x 64 = 31360
    assert temporary_bytes(net, 1000, 2) == 2 * 78_750
    assert temporary_bytes(replace(net, anchors=1), 1000, 1) == 31_360
    assert temporary_bytes(replace(net, anchors=1), 10_000, 1) == 140_000


def test_parameters_by_hand():
    """Stem and layer1 of ResNet-18, one level of 8 channels, head 4 wide, one anchor, one class.

    9536 + 147968; lateral 64 x 8 + 8, output 9 x 64 + 8; RPN 9 x 64 + 8, 5 x 9; fc 49 x 8 x 4 + 4, 4 x 4 + 4;
    2 outputs with 5 values each from 4 + 1.
    """
    net = Network("resnet18", "batch", (1,), 8, 4, 3, 1, 1)
    assert parameter_count(net) == 157_504 + 520 + 584 + 584 + 45 + 1572 + 20 + 50


def test_parts_of_the_estimate():
    net = Network("resnet50")
    plain = estimate_memory(net, 640_000, 2)
    assert plain.weights == parameter_count(net) * 4 / 1e9
    assert (plain.gradients, plain.optimizer, plain.averaged) == (plain.weights, plain.weights, 0)
    assert plain.images == 2 * 640_000 * 12 / 1e9
    assert plain.fragmentation == pytest.approx(0.1 * (plain.activations + plain.temporaries))
    assert plain.total == pytest.approx(sum(vars(plain).values()))
    assert plain.describe().startswith(f"{plain.total:.1f} GB (activations {plain.activations:.1f}, ")
    rich = estimate_memory(net, 640_000, 2, Training("adamw", "bf16", averaged=True, gpus=2))
    assert (rich.weights, rich.gradients, rich.optimizer, rich.averaged) == pytest.approx(
        (1.5 * plain.weights, 2 * plain.weights, 2 * plain.weights, plain.weights)
    )
    cpu = estimate_memory(net, 640_000, 2, device="cpu")
    assert cpu.context == cpu.workspace == cpu.fragmentation == 0


@pytest.mark.parametrize("backbone", BACKBONES)
def test_16_bit_halves_batch_norm_but_not_what_stays_in_fp32(backbone):
    for norm, saves in (("batch", True), ("frozen", True), ("group", False)):
        full, mixed = (stage_bytes(backbone, norm, m) for m in (False, True))
        assert (sum(mixed) < sum(full)) == saves
        assert (mixed[1:] == [size / 2 for size in full[1:]]) == saves


def test_published_differences_between_backbones():
    """detectron2's model zoo, Faster R-CNN with FPN, 2 images per GPU of up to 800 x 1333, frozen BatchNorm, SGD:

    R50 3.0 GB, R101 4.1 GB, X101-32x8d 6.7 GB. Differences are free of its frozen first layers and of the context.
    """
    zoo = {"resnet50": 3.0, "resnet101": 4.1, "resnext101_32x8d": 6.7}
    ours = {}
    for name in zoo:
        estimate = estimate_memory(Network(name, "frozen", classes=80, anchors=3), 800 * 1333, 2)
        trained = estimate.activations - 2 * 800 * 1333 * sum(stage_bytes(name, "frozen", False)[:2]) / 1e9
        ours[name] = estimate.weights + estimate.gradients + estimate.optimizer + trained
    assert ours["resnet101"] - ours["resnet50"] == pytest.approx(1.1, rel=0.1)
    assert ours["resnext101_32x8d"] - ours["resnet101"] == pytest.approx(2.6, rel=0.1)


@given(NETWORKS, TRAININGS, SIDES, st.integers(1, 32))
def test_memory_grows_with_everything(network, training, side, images):
    total = estimate_memory(network, side**2, images, training).total
    assert estimate_memory(network, side**2 + 1000, images, training).total > total
    assert estimate_memory(network, side**2, images + 1, training).total > total
    deeper = replace(network, backbone="resnext101_32x8d")
    assert estimate_memory(deeper, side**2, images, training).total >= total


@given(NETWORKS, TRAININGS, st.floats(1, 160), st.integers(1, 16))
def test_most_pixels_is_the_inverse(network, training, memory, images):
    pixels = max_pixels_for(memory, network, images, training)
    if pixels:
        assert estimate_memory(network, pixels, images, training).total <= 0.92 * memory
    assert estimate_memory(network, pixels + 1, images, training).total > 0.92 * memory


@given(NETWORKS, TRAININGS, st.floats(1, 160), SIDES)
def test_most_images_is_the_inverse(network, training, memory, side):
    images = max_images_for(memory, network, side**2, training)
    assert 0 <= images <= 64
    if images:
        assert estimate_memory(network, side**2, images, training).total <= 0.92 * memory
    if images < 64:
        assert estimate_memory(network, side**2, images + 1, training).total > 0.92 * memory


@given(NETWORKS, TRAININGS, st.floats(6, 160), st.floats(0, 80), SIDES)
def test_more_memory_never_costs_depth_or_batch(network, training, memory, more, side):
    try:
        small = choose_network(Target("gpu", memory), side**2, 1, network, training)
    except UserError:
        return
    large = choose_network(Target("gpu", memory + more), side**2, 1, network, training)
    assert LADDER.index(large.network.backbone) >= LADDER.index(small.network.backbone)
    assert large.batch_size >= small.batch_size
    assert large.pixels >= small.pixels
    for choice in (small, large):
        assert choice.batch_size % training.gpus == 0
        assert choice.batch_size <= 64
        if choice.network.backbone != LADDER[0]:
            assert choice.batch_size >= 8
    assert small.estimate.total <= 0.92 * memory
    again = estimate_memory(small.network, small.pixels, small.batch_size // training.gpus, training)
    assert small.estimate == again


@pytest.mark.parametrize("memory", [8, 11, 12, 16, 24, 32, 40, 48, 80])
@pytest.mark.parametrize("gpus", [1, 2, 4])
def test_usual_machines_train_the_papers_slices(memory, gpus):
    choice = _choose(float(memory), gpus=gpus)
    assert choice.batch_size >= 8
    assert choice.pixels == 640_000
    assert f"of {memory} GB: {choice.network.backbone}" in choice.reason


def test_machine_of_the_paper():
    """Xu et al. trained 16 slices of up to 800 pixels on each of 4 GPUs with 48 GB: 64 with the deepest rung."""
    choice = _choose(48.0, gpus=4)
    assert (choice.network.backbone, choice.batch_size) == ("resnext101_32x8d", 64)


def test_more_gpus_share_the_batch():
    one, two = _choose(12.0), _choose(12.0, gpus=2)
    assert LADDER.index(two.network.backbone) > LADDER.index(one.network.backbone)
    assert _choose(1000.0, gpus=3).batch_size == 63  # 21 on each


def test_larger_stage_counts():
    target = Target("gpu", 16.0)
    first, second = (
        choose_network(target, *sizes, Network()) for sizes in ((640_000, 10_000), (10_000, 640_000))
    )
    assert first == second
    assert first.pixels == 640_000


def test_slices_shrink_when_not_one_fits():
    huge = 6000**2
    choice = choose_network(Target("gpu", 8.0), huge, 1, Network())
    assert (choice.network.backbone, choice.batch_size) == ("resnet18", 1)
    assert MIN_PIXELS < choice.pixels < huge
    assert choice.pixels == max_pixels_for(8.0, choice.network, 1)
    assert f"one slice of {huge} does not fit" in choice.reason


def test_refuses_what_cannot_be():
    with pytest.raises(
        UserError, match=r"resnet18\) does not fit the GPU; expected \d\.\d GB for one slice.*found 1 GB"
    ):
        _choose(1.0)
    with pytest.raises(UserError, match="memory of this backbone is unknown; expected resnet18, resnet50, "):
        Network("vgg16")
    with pytest.raises(UserError, match="memory of this norm is unknown"):
        Network(norm="layer")
    with pytest.raises(UserError, match="on 1 to 64 GPUs"):
        Training(gpus=0)
    with pytest.raises(UserError, match="sgd or adamw"):
        Training("lamb")


def test_cpu_is_short_of_time_not_memory():
    narrow = Network(norm="batch", fpn_channels=64, head_channels=128, roi_samples=32)
    choice = choose_network(Target("cpu", 0.0), 28_000, 28_000, narrow)
    assert (choice.network.backbone, choice.batch_size, choice.pixels) == ("resnet18", 4, 28_000)
    assert choice.network.fpn_channels == 64
    assert choice.estimate.context == 0
    assert choice.estimate.total < 1
