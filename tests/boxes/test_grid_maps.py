"""Boxes between grids that differ by any flip, permutation and crop; IoU against counted cells."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from nndet_psma.boxes.box import boxes_from_instances, pairwise_iou, to_nndetection
from nndet_psma.boxes.geometry import Geometry, map_boxes

coordinate = st.integers(-20, 20)
side = st.integers(0, 15)
millimetres = st.floats(0.3, 6.0)
position = st.floats(-300, 300)


@st.composite
def square_boxes(draw):
    rows = draw(st.lists(st.tuples(coordinate, coordinate, side, side), max_size=4))
    corners = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:]], axis=1)


@st.composite
def geometries(draw):
    """Oblique grids, right- and left-handed."""
    rotation = Rotation.from_rotvec(draw(st.tuples(*[st.floats(-3, 3)] * 3))).as_matrix()
    mirrored = rotation * draw(st.sampled_from([1.0, -1.0]))
    return Geometry(
        shape=(40, 40, 40),
        spacing=draw(st.tuples(millimetres, millimetres, millimetres)),
        origin=draw(st.tuples(position, position, position)),
        direction=tuple(mirrored.ravel().tolist()),
    )


@settings(max_examples=40)
@given(square_boxes(), square_boxes())
def test_iou_agrees_with_counting_cells(first, second):
    found = pairwise_iou(first, second)

    def cells(box):
        grid = np.zeros((60, 60), dtype=bool)  # coordinates -20..35, shifted by 20
        y0, x0, y1, x1 = (int(v) + 20 for v in box)
        grid[y0:y1, x0:x1] = True
        return grid

    for i, a in enumerate(first):
        for j, b in enumerate(second):
            union = (cells(a) | cells(b)).sum()
            assert found[i, j] == ((cells(a) & cells(b)).sum() / union if union else 0)


@pytest.mark.parametrize("shape", [(10, 20), (10, 20, 30)])
def test_nndetection_box_is_min_index_minus_1_to_max_index_plus_1(shape):
    # HOSTS.md, 1: (a0_min, a1_min, a0_max, a1_max, a2_min, a2_max); the voxels 3..5 along an axis give 2..6
    mask = np.zeros(shape, dtype=np.int32)
    mask[3:6, 7:9] = 1
    edges = [(int(axis.min()) - 1, int(axis.max()) + 1) for axis in np.nonzero(mask)]
    expected = [edges[0][0], edges[1][0], edges[0][1], edges[1][1], *(edges[2] if len(shape) == 3 else ())]
    assert expected[:4] == [2, 6, 6, 9]
    _, boxes = boxes_from_instances(mask)
    assert to_nndetection(boxes).tolist() == [expected]


def _variant(geometry, order, flips, start, size):
    """The part ``start .. start + size`` of ``geometry`` with its array axes flipped and reordered."""
    matrix = np.array(geometry.direction).reshape(3, 3)[:, ::-1]  # columns z, y, x
    first = np.array([start[a] + (size[a] - 1 if flips[a] else 0) for a in range(3)])
    signed = matrix * np.where(flips, -1.0, 1.0)
    return Geometry(
        shape=tuple(size[a] for a in order),
        spacing=tuple(geometry.spacing[a] for a in order),
        origin=tuple(geometry.to_patient(first[None] + 0.5)[0].tolist()),
        direction=tuple(signed[:, list(order)][:, ::-1].ravel().tolist()),
    )


@settings(max_examples=60)
@given(
    geometries(),
    st.sampled_from(list(permutations(range(3)))),
    st.tuples(*[st.booleans()] * 3),
    st.tuples(*[st.integers(0, 9)] * 3),
)
def test_flips_permutations_and_crops_are_exact(geometry, order, flips, start):
    size = (11, 12, 13)
    variant = _variant(geometry, order, flips, start, size)
    box = np.array([12.0, 10, 15, 14, 13, 19])
    mapped = map_boxes(box[None], geometry, variant)[0]
    lower, upper = [], []
    for axis in order:  # by hand: subtract the crop, mirror about the crop's edges, reorder
        low, high = box[axis] - start[axis], box[3 + axis] - start[axis]
        if flips[axis]:
            low, high = size[axis] - high, size[axis] - low
        lower.append(low)
        upper.append(high)
    np.testing.assert_allclose(mapped, lower + upper, atol=1e-6)
    np.testing.assert_allclose(map_boxes(mapped[None], variant, geometry)[0], box, atol=1e-6)


def test_between_rotated_grids_the_box_is_the_hull():
    turned = Rotation.from_euler("z", 45, degrees=True).as_matrix()
    source = Geometry((10, 10, 10), (1.0, 1.0, 1.0))
    target = replace(source, direction=tuple(turned.ravel().tolist()))
    # a square of side 2 turned by 45 degrees has a hull of side 2 * sqrt(2)
    mapped = map_boxes(np.array([[0.0, 4, 4, 1, 6, 6]]), source, target)[0]
    np.testing.assert_allclose(mapped[3:] - mapped[:3], [1, 2 * 2**0.5, 2 * 2**0.5], atol=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_same_grid_tells_flips(axis):
    direction = [1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0]
    direction[axis * 4] = -1.0
    grid = Geometry((4, 4, 4), (1.0, 1.0, 1.0))
    assert not grid.same_grid(replace(grid, direction=tuple(direction)))


def test_same_grid_adds_up_small_differences_of_spacing():
    # 0.0002 mm per voxel are 0.02 mm at the hundredth voxel, more than the tolerance of 0.01 mm
    grid = Geometry((10, 100, 100), (3.0, 1.0, 1.0))
    assert not grid.same_grid(replace(grid, spacing=(3.0, 1.0, 1.0002)))
    assert grid.same_grid(replace(grid, spacing=(3.0, 1.0, 1.00005)))
