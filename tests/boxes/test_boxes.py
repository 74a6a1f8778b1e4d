"""The box convention and its conversions, with values derived by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nndet_psma.boxes import box as bx


def random_boxes(dim):
    corners = arrays(np.float64, (5, dim), elements=st.floats(-50, 50, width=32))
    sizes = arrays(np.float64, (5, dim), elements=st.floats(0, 30, width=32))
    return st.tuples(corners, sizes).map(lambda pair: np.concatenate([pair[0], pair[0] + pair[1]], axis=1))


def test_iou_by_hand():
    # 2x2x2 = 8 voxels each, overlap 1x2x2 = 4, union 12
    first = np.array([[0, 0, 0, 2, 2, 2.0]])
    second = np.array([[1, 0, 0, 3, 2, 2.0], [5, 5, 5, 6, 6, 6.0]])
    assert bx.pairwise_intersection(first, second).tolist() == [[4.0, 0.0]]
    np.testing.assert_allclose(bx.pairwise_iou(first, second), [[4 / 12, 0.0]])


def test_iou_of_empty_boxes_is_zero_not_nan():
    flat = np.array([[1, 1, 1, 1, 3, 3.0]])
    assert bx.pairwise_iou(flat, flat).tolist() == [[0.0]]


def test_box_of_a_single_voxel_is_one_voxel_wide():
    mask = np.zeros((4, 5, 6), dtype=int)
    mask[1, 2, 3] = 7
    ids, boxes = bx.boxes_from_instances(mask)
    assert ids.tolist() == [7]
    assert boxes.tolist() == [[1, 2, 3, 2, 3, 4]]
    assert bx.box_volumes(boxes).tolist() == [1.0]


def test_no_instances_have_shape_zero_by_six():
    ids, boxes = bx.boxes_from_instances(np.zeros((2, 2, 2), dtype=int))
    assert ids.shape == (0,)
    assert boxes.shape == (0, 6)


def test_background_below_zero_is_no_instance():
    mask = np.full((1, 3, 3), -1)
    mask[0, 1, 1] = 1
    assert bx.boxes_from_instances(mask)[1].tolist() == [[0, 1, 1, 1, 2, 2]]


def test_nndetection_order_and_extent():
    # object on z 3..5, y 10..11, x 20: nnDetection makes min_index - 1 .. max_index + 1 on each axis,
    # ordered (a0_min, a1_min, a0_max, a1_max, a2_min, a2_max)
    mask = np.zeros((8, 16, 24), dtype=int)
    mask[3:6, 10:12, 20] = 1
    _, ours = bx.boxes_from_instances(mask)
    assert bx.to_nndetection(ours).tolist() == [[2, 9, 6, 12, 19, 21]]


def test_nndetection_order_in_2d():
    assert bx.to_nndetection(np.array([[3.0, 10, 6, 12]])).tolist() == [[2, 9, 6, 12]]


@pytest.mark.parametrize("dim", [2, 3])
@given(data=st.data())
def test_nndetection_round_trip(dim, data):
    ours = data.draw(random_boxes(dim))
    np.testing.assert_allclose(bx.from_nndetection(bx.to_nndetection(ours)), ours, atol=1e-9)


def test_conversion_leaves_its_input_alone():
    ours = np.array([[1.0, 2, 3, 4, 5, 6]])
    bx.to_nndetection(ours)
    bx.from_nndetection(ours)
    assert ours.tolist() == [[1.0, 2, 3, 4, 5, 6]]


def test_torchvision_order():
    # (y0, x0, y1, x1) -> (x0, y0, x1, y1)
    assert bx.to_torchvision(np.array([[1.0, 2, 3, 4]])).tolist() == [[2, 1, 4, 3]]
    assert bx.from_torchvision(np.array([[2.0, 1, 4, 3]])).tolist() == [[1, 2, 3, 4]]


def test_clip_cuts_to_the_array():
    assert bx.clip_boxes(np.array([[-1.0, 2, 9, 7]]), (5, 6)).tolist() == [[0, 2, 5, 6]]


@given(first=random_boxes(3), second=random_boxes(3))
def test_iou_is_symmetric_and_between_zero_and_one(first, second):
    iou = bx.pairwise_iou(first, second)
    np.testing.assert_allclose(iou, bx.pairwise_iou(second, first).T)
    assert ((iou >= 0) & (iou <= 1 + 1e-12)).all()


def test_a_box_may_reach_a_tenth_of_the_side_and_a_voxel_beyond_the_image():
    # sides 20 and 30: 3 and 4 voxels beyond
    boxes = np.array([[-3, -4, 23, 34], [-3.1, 0, 5, 5], [0, 0, 5, 34.1], [0, 0, 23.1, 5]])
    assert bx.reach_outside(boxes, (20, 30)).tolist() == [False, True, True, True]
