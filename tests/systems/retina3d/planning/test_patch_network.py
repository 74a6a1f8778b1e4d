"""Where a 3D network pools, and which of its stages carry anchors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nndet_psma.systems.retina3d.planning.network import (
    LEAST_CELLS,
    MAX_STAGES,
    Topology,
    choose_levels,
    plan_topology,
    stage_channels,
)

SPACINGS = st.tuples(*[st.floats(0.4, 8.0)] * 3)
SIZES = st.tuples(*[st.integers(1, 300)] * 3)


def test_isotropic_patches_pool_everywhere() -> None:
    # 64 / 2^4 = 4 cells: four poolings
    found = plan_topology((1.0, 1.0, 1.0), (64, 64, 64))
    assert found.strides == [(1, 1, 1)] + [(2, 2, 2)] * 4
    assert found.kernels == [(3, 3, 3)] * 5
    assert found.divisor == (16, 16, 16)


def test_coarse_slices_wait_for_the_plane() -> None:
    # 5 mm slices of 0.625 mm pixels: ratios 8, 4, 2 (the plane is pooled alone), then 1: all axes
    found = plan_topology((5.0, 0.625, 0.625), (16, 256, 256))
    assert found.strides == [(1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)]
    # the kernel along z is 3 where the ratio has fallen below 2, and stays so
    assert [kernel[0] for kernel in found.kernels] == [1, 1, 1, 3, 3, 3]
    assert all(kernel[1:] == (3, 3) for kernel in found.kernels)


def test_an_axis_without_cells_left_is_not_waited_for() -> None:
    # 7 slices cannot be halved to four cells; the plane goes on by itself
    found = plan_topology((1.0, 1.0, 1.0), (7, 32, 16))
    assert found.strides == [(1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 1)]
    assert found.kernels == [(3, 3, 3)] * 4
    assert found.rounded((7, 31, 9)) == (7, 32, 12)


def test_a_patch_too_small_to_pool_keeps_its_stage() -> None:
    assert plan_topology((1.0, 1.0, 1.0), (7, 7, 7)).strides == [(1, 1, 1)]


@given(SPACINGS, SIZES)
def test_rules_hold_everywhere(spacing: tuple[float, float, float], size: tuple[int, int, int]) -> None:
    found = plan_topology(spacing, size)
    assert 1 <= len(found.strides) == len(found.kernels) <= MAX_STAGES
    patch = found.rounded(size)
    for axis in range(3):
        assert patch[axis] % found.divisor[axis] == 0
        assert size[axis] <= patch[axis] < size[axis] + found.divisor[axis]
        if found.divisor[axis] > 1:
            assert patch[axis] // found.divisor[axis] >= LEAST_CELLS
        kernels = [kernel[axis] for kernel in found.kernels]
        assert kernels == sorted(kernels)
    # pooling brings spacings together: no axis is pooled beyond twice the coarsest that could still be pooled
    for stage in found.strides[1:]:
        assert max(stage) == 2


def test_channels_double_up_to_the_most() -> None:
    assert stage_channels(6, 32, 320) == [32, 64, 128, 256, 320, 320]


ISOTROPIC = Topology([(1, 1, 1)] + [(2, 2, 2)] * 5, [(3, 3, 3)] * 6)


@pytest.mark.parametrize(
    ("small", "large", "levels"),
    [
        (4.0, 32.0, [2, 3, 4, 5]),  # strides 4 to 32, as nnDetection
        (4.0, 16.0, [2, 3, 4]),
        (3.9, 16.0, [1, 2, 3, 4]),  # smaller than stride 4
        (1.0, 2.0, [1, 2]),  # two levels at least
        (8.0, 8.0, [2, 3]),
        (3.0, 99.0, [1, 2, 3, 4]),  # four at most
    ],
)
def test_levels_by_hand(small: float, large: float, levels: list[int]) -> None:
    """21 lesions: the 5 % quantile is the second smallest, the 95 % quantile the second largest."""
    sides = [small] * 10 + [large] * 11
    assert choose_levels(ISOTROPIC, np.array([[side] * 3 for side in sides])) == levels


def test_every_axis_counts() -> None:
    thin = np.array([[3.0, 30.0, 30.0]] * 5)
    assert choose_levels(ISOTROPIC, thin) == [1, 2]
    flat = Topology([(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)], [(3, 3, 3)] * 5)
    assert choose_levels(flat, thin) == [2, 3]  # strides (1, 4, 4) and (2, 8, 8); (4, 16, 16) is too thick


def test_networks_with_few_stages() -> None:
    lesions = np.array([[20.0] * 3])
    assert choose_levels(Topology([(1, 1, 1)], [(3, 3, 3)]), lesions) == [0]
    assert choose_levels(Topology([(1, 1, 1), (2, 2, 2)], [(3, 3, 3)] * 2), lesions) == [1]
