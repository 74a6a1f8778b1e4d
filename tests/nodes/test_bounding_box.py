"""The minimum-volume bounding box: exact on boxes at any orientation, never beaten by a search over rotations."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from nndet_psma.nodes.bounding_box import mask_corners, minimum_box

SIDES = st.tuples(*[st.floats(0.5, 30)] * 3)
SEEDS = st.integers(0, 2**31)
ROTATIONS = Rotation.random(3000, random_state=0).as_matrix()


def box_points(sides):
    return np.array(np.meshgrid(*[[0.0, side] for side in sides])).reshape(3, -1).T


def searched_volume(points):
    """Smallest volume over 3000 rotations, the best four of them refined: slow and evident."""
    widths = np.ptp(np.einsum("rij,nj->rin", ROTATIONS, points), axis=2)
    volumes = widths.prod(axis=1)

    def volume(turn, start):
        return np.ptp(points @ start.T @ Rotation.from_rotvec(turn).as_matrix(), axis=0).prod()

    starts = ROTATIONS[np.argsort(volumes)[:4]]
    return min(minimize(volume, np.zeros(3), args=(start,), method="Nelder-Mead").fun for start in starts)


@given(SIDES, SEEDS)
@settings(max_examples=40, deadline=None)
def test_a_rotated_box_has_its_own_sides(sides, seed):
    turn = Rotation.random(random_state=seed).as_matrix()
    found = minimum_box(box_points(sides) @ turn.T + [5, -3, 100])
    assert found.sides == pytest.approx(sorted(sides, reverse=True), rel=1e-6)
    assert found.volume == pytest.approx(np.prod(sides), rel=1e-6)
    assert found.centre == pytest.approx(turn @ (np.array(sides) / 2) + [5, -3, 100], abs=1e-6)


@given(SEEDS, st.integers(4, 12))
@settings(max_examples=12, deadline=None)
def test_no_rotation_gives_a_smaller_box(seed, count):
    points = np.random.default_rng(seed).normal(size=(count, 3)) * (1, 2, 4)
    found = minimum_box(points)
    assert found.volume <= searched_volume(points) * (1 + 1e-4)
    # and it does contain the points: along its axes none lies further out than half a side
    apart = np.abs((points - found.centre) @ found.axes.T)
    assert (apart <= np.array(found.sides) / 2 + 1e-9).all()


def test_the_box_of_a_tetrahedron_is_a_cube():
    # corners of a cube of side 2, every second one; a box flush with a facet has 16 mm3, that of the cube 8
    points = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=float)
    turned = points @ Rotation.from_euler("xyz", [0.3, 0.5, 0.7]).as_matrix().T
    assert minimum_box(turned).sides == pytest.approx((2, 2, 2))


def test_axes_are_orthonormal_and_in_the_order_of_the_sides():
    found = minimum_box(box_points((2, 7, 3)))
    assert found.axes @ found.axes.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.abs(found.axes) == pytest.approx(np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]]), abs=1e-12)


def test_a_cuboid_of_voxels_has_exactly_its_extents():
    mask = np.zeros((5, 6, 9), dtype=bool)
    mask[1:3, 2:5, 1:8] = True  # 2 x 3 x 7 voxels of 3 x 0.7 x 0.5 mm
    found = minimum_box(mask_corners(mask, (3.0, 0.7, 0.5)), (3.0, 0.7, 0.5))
    assert found.sides == pytest.approx((6, 3.5, 2.1), abs=1e-12)
    assert found.centre == pytest.approx(
        (6, 2.45, 2.25), abs=1e-12
    )  # voxel edges: z 3..9, y 1.4..3.5, x 0.5..4


def test_one_voxel_is_a_voxel():
    assert minimum_box(
        mask_corners(np.ones((1, 1, 1), dtype=bool), (3.0, 0.7, 0.5)), (3.0, 0.7, 0.5)
    ).sides == pytest.approx((3.0, 0.7, 0.5))


def test_a_diagonal_bar_of_voxels():
    # voxels (i, i) of an 8 x 8 slice: the hull runs from corner (0, 0) to (8, 8), 8 * sqrt(2) long; across, the far
    # corners of a voxel lie sqrt(2) apart; one voxel high
    mask = np.eye(8, dtype=bool)[None]
    corners = mask_corners(mask, (1.0, 1.0, 1.0))
    assert minimum_box(corners).sides == pytest.approx((8 * 2**0.5, 2**0.5, 1))
    # rounded voxels: seven diagonal steps and one voxel long, one voxel across
    assert minimum_box(corners, (1.0, 1.0, 1.0)).sides == pytest.approx((7 * 2**0.5 + 1, 1, 1))


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_corners_for_the_hull_are_enough(seed):
    mask = np.random.default_rng(seed).random((3, 4, 5)) < 0.3
    mask[1, 1, 1] = True
    spacing = (2.0, 1.0, 0.5)
    offsets = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T
    every = (np.argwhere(mask)[:, None] + offsets[None]).reshape(-1, 3) * spacing
    few = mask_corners(mask, spacing)
    assert {tuple(p) for p in few} <= {tuple(p) for p in every}
    assert minimum_box(few).volume == pytest.approx(minimum_box(every).volume)


def test_points_in_a_plane_are_refused():
    with pytest.raises(ValueError, match="one plane"):
        minimum_box(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=float))


def test_an_organ_takes_a_sample_of_directions_and_little_time():
    # an ellipsoid of 120 x 90 x 60 mm in 1 mm voxels: thousands of edges; any box has at least its volume times 6 / pi
    z, y, x = np.ogrid[:70, :100, :130]
    mask = ((z - 35) / 30) ** 2 + ((y - 50) / 45) ** 2 + ((x - 65) / 60) ** 2 <= 1
    start = time.process_time()
    found = minimum_box(mask_corners(mask, (1.0, 1.0, 1.0)), (1.0, 1.0, 1.0))
    assert time.process_time() - start < 5
    assert found.volume == pytest.approx(121 * 91 * 61, rel=0.03)
