"""Which patch and batch are chosen: candidates, order, and that more memory never gives less."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nndet_psma.artifacts.plan import Target
from nndet_psma.core.errors import UserError
from nndet_psma.planners.training_memory import Training
from nndet_psma.planners.volume_rules import VolumeSizes
from nndet_psma.systems.retina3d.planning.detector import network_for
from nndet_psma.systems.retina3d.planning.layers import patch_flops
from nndet_psma.systems.retina3d.planning.network import plan_topology
from nndet_psma.systems.retina3d.planning.patch import (
    LEAST_BATCH,
    MOST_BATCH,
    USUAL_BATCH,
    USUAL_VOXELS,
    choose_patch,
    patch_candidates,
    steps_down,
)
from nndet_psma.systems.retina3d.planning.profile import choose_patch_profile

CPU, GPU = Target("cpu", 0.0), Target("gpu", 24.0)
ISOTROPIC, COARSE = (1.0, 1.0, 1.0), (5.0, 0.8, 0.8)


def volume(region=(160.0, 200.0, 240.0), lesion=(10.0, 12.0, 12.0)) -> VolumeSizes:
    return VolumeSizes(np.array([region]), np.array([lesion] * 3))


def builder(target: Target, sizes: VolumeSizes):
    return partial(network_for, profile=choose_patch_profile(target), sizes=sizes, channels=2, classes=1)


def choose(target: Target, spacing=ISOTROPIC, sizes: VolumeSizes | None = None, training=None):
    sizes = sizes or volume()
    profile = choose_patch_profile(target)
    return choose_patch(target, spacing, sizes, profile, builder(target, sizes), training or Training())


def candidates(target: Target, spacing, sizes):
    return patch_candidates(spacing, sizes, choose_patch_profile(target), builder(target, sizes))


def test_candidates_start_at_the_region_and_keep_its_shape() -> None:
    found = candidates(GPU, ISOTROPIC, volume())
    # 160 = 5 x 32, 200 and 240 rounded up to 32: six stages
    assert found[0].patch == (160, 224, 256)
    for candidate in found[:8]:
        ratios = np.array(candidate.patch) / [160, 200, 240]
        assert ratios.max() / ratios.min() < 1.6  # one step of 32 at a time, always where it is longest
    # the last still holds 1.5 x the lesions of 10 x 12 x 12
    assert all(side >= least for side, least in zip(found[-1].patch, (15, 18, 18), strict=True))


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 400), st.integers(1, 500), st.integers(1, 500)),
    st.sampled_from([ISOTROPIC, COARSE]),
)
def test_candidates_shrink_and_divide(region, spacing) -> None:
    sizes = volume(tuple(map(float, region)), (1.0, 2.0, 2.0))
    for target in (CPU, GPU):
        found = candidates(target, spacing, sizes)
        volumes = [candidate.voxels for candidate in found]
        assert volumes == sorted(set(volumes), reverse=True)
        for candidate in found:
            divisor = candidate.network.topology.divisor
            assert all(side % d == 0 for side, d in zip(candidate.patch, divisor, strict=True))


def test_a_large_body_starts_from_a_cube_in_mm() -> None:
    """At (5, 0.8, 0.8) mm a cube of 256 voxels has the side 256 x 3.2^(1/3) = 377.3 mm: 75.4 slices, 471.6 pixels."""
    first = candidates(GPU, COARSE, volume((300.0, 600.0, 600.0)))[0]
    topology = plan_topology(COARSE, (75, 471, 471))
    assert first.patch == topology.rounded((75, 471, 471))
    # on the CPU a cube of 64: 94.3 mm: 18.9 slices, 117 pixels, 64 at most
    assert candidates(CPU, COARSE, volume((300.0, 600.0, 600.0)))[0].patch == (20, 64, 64)


def test_order_of_what_memory_buys() -> None:
    found = candidates(GPU, ISOTROPIC, volume())
    pairs = list(steps_down(found, choose_patch_profile(GPU)))
    assert pairs[0] == (found[0], MOST_BATCH)
    assert pairs[-1] == (found[-1], LEAST_BATCH)
    for (before, more), (after, fewer) in pairwise(pairs):
        assert after.voxels <= before.voxels
        assert fewer <= more
    for candidate, batch in pairs:
        if candidate.voxels > USUAL_VOXELS:
            assert batch >= USUAL_BATCH
    assert len(pairs) == len(set((candidate.patch, batch) for candidate, batch in pairs))


@settings(max_examples=25, deadline=None)
@given(
    st.floats(4.0, 90.0),
    st.floats(1.0, 3.0),
    st.sampled_from([ISOTROPIC, COARSE]),
    st.sampled_from([(160.0, 200.0, 240.0), (33.0, 70.0, 82.0), (60.0, 380.0, 460.0)]),
    st.integers(1, 4),
)
def test_neither_patch_nor_batch_falls_with_memory(memory, factor, spacing, region, gpus) -> None:
    sizes, training = volume(region), Training(gpus=gpus)
    less = choose(Target("gpu", memory, gpus), spacing, sizes, training)
    more = choose(Target("gpu", memory * factor, gpus), spacing, sizes, training)
    assert prod(more.patch) >= prod(less.patch)
    assert more.batch_size >= less.batch_size
    assert less.estimate.total <= 0.92 * memory
    assert less.batch_size % gpus == 0


def test_a_small_region_is_seen_whole() -> None:
    found = choose(GPU, ISOTROPIC, volume((33.0, 70.0, 82.0)))
    assert all(side >= wanted for side, wanted in zip(found.patch, (33, 70, 82), strict=True))
    assert found.batch_size == MOST_BATCH


def test_a_usual_gpu_gives_a_usual_patch() -> None:
    """24 GB, isotropic, a large region: nnDetection's 4 patches of a hundred voxels a side or more."""
    found = choose(GPU, ISOTROPIC, volume((300.0, 400.0, 400.0)))
    assert found.batch_size == USUAL_BATCH
    assert min(found.patch) >= 96
    assert "GPU of 24 GB: 4 patches of" in found.reason


def test_a_gpu_too_small_says_what_is_missing() -> None:
    with pytest.raises(UserError, match=r"smallest 3D patch .* does not fit .*gpu_memory_gb"):
        choose(Target("gpu", 1.5))


def test_cpu_steps_stay_within_their_flops() -> None:
    found = choose(CPU, COARSE, volume((60.0, 400.0, 400.0), (3.0, 10.0, 10.0)))
    assert found.batch_size == LEAST_BATCH
    assert max(found.patch) <= 64
    assert LEAST_BATCH * patch_flops(found.network, prod(found.patch)) <= 8e10
    assert "GFLOP per step" in found.reason


def test_cpu_holds_lesions_even_where_that_is_slow() -> None:
    """Small lesions want the fine level, large ones a patch of 90 voxels, of which 64 are allowed."""
    sizes = VolumeSizes(np.array([[200.0] * 3]), np.array([[2.0] * 3, [60.0] * 3] * 10))
    found = choose(CPU, ISOTROPIC, sizes)
    assert found.patch == (64, 64, 64)
    assert LEAST_BATCH * patch_flops(found.network, prod(found.patch)) > 8e10
    assert "no smaller patch would hold the lesions" in found.reason
