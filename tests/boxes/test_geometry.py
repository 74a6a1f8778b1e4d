"""Voxel edges to patient millimetres and back, against SimpleITK."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from nndet_psma.boxes.geometry import Geometry, box_corners, map_boxes

STRAIGHT = Geometry((4, 5, 6), (3.0, 2.0, 1.0), (10.0, 20.0, 30.0))


def tilted(angles, spacing=(3.0, 2.0, 1.0)):
    direction = Rotation.from_euler("xyz", angles, degrees=True).as_matrix().ravel()
    return Geometry((4, 5, 6), spacing, (10.0, 20.0, 30.0), tuple(direction.tolist()))


def test_centre_of_the_first_voxel_is_the_origin():
    assert STRAIGHT.to_patient(np.array([[0.5, 0.5, 0.5]])).tolist() == [[10.0, 20.0, 30.0]]


def test_a_step_along_x_by_hand():
    # edge x = 6 is 5.5 voxels of 1 mm from the first centre; z and y stay at the centre
    assert STRAIGHT.to_patient(np.array([[0.5, 0.5, 6.0]])).tolist() == [[15.5, 20.0, 30.0]]


@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    point=st.tuples(st.floats(-5, 9), st.floats(-5, 9), st.floats(-5, 9)),
)
def test_agrees_with_simpleitk(angles, point):
    geometry = tilted(angles)
    image = sitk.Image(geometry.shape[::-1], sitk.sitkUInt8)
    image.SetSpacing(geometry.spacing[::-1])
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    index = [value - 0.5 for value in point[::-1]]  # SimpleITK: x, y, z and centres on integers
    expected = image.TransformContinuousIndexToPhysicalPoint(index)
    found = geometry.to_patient(np.array([point]))
    np.testing.assert_allclose(found[0], expected, atol=1e-6)
    np.testing.assert_allclose(geometry.to_voxels(found)[0], point, atol=1e-6)


def test_box_corners_are_all_eight():
    corners = box_corners(np.array([[0.0, 1, 2, 3, 4, 5]]))[0]
    assert len({tuple(corner) for corner in corners.tolist()}) == 8
    assert corners.min(axis=0).tolist() == [0, 1, 2]
    assert corners.max(axis=0).tolist() == [3, 4, 5]


def test_crop_moves_boxes_by_the_crop():
    crop = Geometry((2, 2, 2), STRAIGHT.spacing, tuple(STRAIGHT.to_patient(np.array([[1.5, 2.5, 3.5]]))[0]))
    assert map_boxes(np.array([[1.0, 2, 3, 2, 3, 4]]), STRAIGHT, crop).tolist() == [[0, 0, 0, 1, 1, 1]]


def test_flipped_grid_mirrors_boxes():
    # the same block of tissue with the x axis reversed: first voxel centre at x = 10 + 5 mm, step -1
    flipped = Geometry(
        STRAIGHT.shape, STRAIGHT.spacing, (15.0, 20.0, 30.0), (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    )
    mapped = map_boxes(np.array([[0.0, 0, 1, 1, 1, 3]]), STRAIGHT, flipped)
    np.testing.assert_allclose(mapped, [[0, 0, 3, 1, 1, 5]])


def test_other_spacing_scales_boxes():
    # half the spacing along z: first centre lies a quarter of the old voxel nearer to the edge
    fine = Geometry((8, 5, 6), (1.5, 2.0, 1.0), (10.0, 20.0, 30.0 - 0.75))
    np.testing.assert_allclose(
        map_boxes(np.array([[1.0, 0, 0, 2, 1, 1]]), STRAIGHT, fine), [[2, 0, 0, 4, 1, 1]]
    )


def test_no_boxes_stay_no_boxes():
    assert map_boxes(np.zeros((0, 6)), STRAIGHT, tilted((5, 0, 0))).shape == (0, 6)


@pytest.mark.parametrize(("shift", "same"), [(0.0, True), (0.005, True), (0.5, False)])
def test_same_grid_tolerates_rounding_only(shift, same):
    other = Geometry(STRAIGHT.shape, STRAIGHT.spacing, (10.0 + shift, 20.0, 30.0))
    assert STRAIGHT.same_grid(other) is same


def test_same_grid_sees_shape():
    assert not STRAIGHT.same_grid(Geometry((4, 5, 7), STRAIGHT.spacing, STRAIGHT.origin))
