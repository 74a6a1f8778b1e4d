"""HU quantiles of many boxes at once, against NumPy's quantile of one box after the other."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nndet_psma.postproc.steps.hu_filter import QUANTILES
from nndet_psma.trainers.networks.box_evidence import box_quantiles, volume_quantiles

VOLUMES = st.sampled_from([np.int16, np.float32]).flatmap(
    lambda dtype: hnp.arrays(dtype, (3, 9, 11), elements=st.integers(-1024, 3071))
)
# slice, corner and side lengths; corners stay inside
ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.floats(0, 7), st.floats(0, 9), st.floats(0, 2), st.floats(0, 2)),
    min_size=1,
    max_size=6,
)


def inside(low, high, size):
    """Voxels whose centre lies between the edges (half open, a hair of rounding below); else that of the middle."""
    found = [i for i in range(size) if low - 1e-6 <= i + 0.5 < high - 1e-6]
    return found or [int((low + high) / 2)]


@settings(max_examples=80, deadline=None)
@given(VOLUMES, ROWS)
def test_same_as_numpy_box_by_box(volume, rows):
    table = np.array(rows)
    boxes = np.column_stack([table[:, 1], table[:, 2], table[:, 1] + table[:, 3], table[:, 2] + table[:, 4]])
    found = box_quantiles(volume, table[:, 0].astype(int), boxes)
    for row, (z, box) in enumerate(zip(table[:, 0].astype(int), boxes, strict=True)):
        rows, columns = (inside(box[axis], box[axis + 2], volume.shape[axis + 1]) for axis in (0, 1))
        part = volume[z][np.ix_(rows, columns)].astype(np.float64)
        wanted = np.quantile(part, QUANTILES).astype(np.float32)
        assert np.array_equal(found[row], wanted)


def test_metal_beside_air_does_not_overflow():
    """-32000 and 32000 are 64000 HU apart, more than int16 holds; the median of the two is 0."""
    volume = np.array([[[-32000, 32000]]], dtype=np.int16)
    found = box_quantiles(volume, np.array([0]), np.array([[0.0, 0.0, 1.0, 2.0]]))
    assert found[0, QUANTILES.index(0.5)] == 0
    assert found[0, -1] == 32000


@pytest.mark.parametrize("too_large", [0.0, 0.4])
def test_vessel_beside_a_node(too_large):
    """A node of 4 x 4 voxels of 0 .. 75 HU in steps of 5, a vessel of 200 HU to its right and below.

    The box of the node is (1, 1, 5, 5). Drawn 0.4 voxels too large it touches the vessel but holds no centre of it:
    q0.9 stays at place 0.9 * 15 = 13.5 of the 16 values, 67.5 HU. By touch the 25 voxels would hold 9 of the vessel.
    """
    volume = np.full((1, 7, 7), 200, dtype=np.int16)
    volume[0, 1:5, 1:5] = 5 * np.arange(16).reshape(4, 4)
    box = np.array([[1.0, 1.0, 5.0 + too_large, 5.0 + too_large]])
    found = box_quantiles(volume, np.array([0]), box)[0]
    assert found[QUANTILES.index(0.9)] == 67.5
    assert found[QUANTILES.index(1.0)] == 75


def test_vessel_above_a_node_in_three_dimensions():
    """The same along z: node of slices 0 and 1 (values 0 .. 7), vessel on slice 2, box up to 2.4."""
    volume = np.full((3, 2, 2), 200, dtype=np.int16)
    volume[:2] = np.arange(8).reshape(2, 2, 2)
    found = volume_quantiles(volume, np.array([[0.0, 0.0, 0.0, 2.4, 2.0, 2.0]]))[0]
    assert found[QUANTILES.index(1.0)] == 7
    assert found[QUANTILES.index(0.5)] == 3.5


def test_a_box_between_centres_takes_the_nearest_voxel():
    volume = np.arange(12, dtype=np.int16).reshape(1, 3, 4)
    found = box_quantiles(volume, np.array([0]), np.array([[0.6, 1.7, 1.2, 2.1]]))  # middle (0.9, 1.9)
    assert found[0].tolist() == [1.0] * 10


def test_ten_thousand_boxes_take_no_second():
    """It runs for every box of every slice."""
    rng = np.random.default_rng(0)
    volume = rng.integers(-100, 200, (40, 256, 256)).astype(np.int16)
    corner = rng.uniform(0, 240, (10_000, 2))
    boxes = np.hstack([corner, corner + rng.uniform(2, 15, (10_000, 2))])
    start = time.perf_counter()
    box_quantiles(volume, rng.integers(0, 40, 10_000), boxes)
    assert time.perf_counter() - start < 1.5  # about 0.1 s; generous for a busy machine
