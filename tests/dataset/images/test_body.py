"""The body region."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from nndet_psma.dataset.images.body import _dilated, _disk, _eroded, body_mask, fill_slices, nonzero_mask


def _ellipse(shape, centre, radii):
    y, x = np.ogrid[: shape[1], : shape[2]]
    inside = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 <= 1
    return np.broadcast_to(inside, shape).copy()


@pytest.fixture
def patient():
    """A pelvis of 260 x 160 mm with gas in it, lying on the thin shell of a hollow table. 2 mm pixels."""
    shape = (4, 160, 200)
    body = _ellipse(shape, (70, 100), (40, 65))
    array = np.where(body, 40, -1000).astype(np.int16)
    array[_ellipse(shape, (70, 100), (6, 6))] = -950  # bowel gas
    table = np.zeros(shape, dtype=bool)
    table[:, 110:112, 20:180] = table[:, 130:132, 20:180] = True  # 4 mm shells, the upper touching the back
    table[:, 110:132, 20:22] = table[:, 110:132, 178:180] = True
    array[table & ~body] = 100
    return array, body


def test_table_goes_and_gas_stays(patient):
    array, body = patient
    mask = body_mask(array, (5.0, 2.0, 2.0))
    assert mask[:, 70, 100].all()  # gas
    assert not mask[:, 128:].any()  # lower shell
    assert (mask & body).sum() == body.sum()
    # the opening leaves the shell where it touches the back (columns 75 to 125 or so), nowhere else
    assert not (mask & ~body)[:, :, :70].any()
    assert not (mask & ~body)[:, :, 130:].any()
    assert (mask & ~body).sum() < 0.015 * body.sum()


def test_two_thighs_are_both_body_and_a_wire_is_not():
    shape = (3, 80, 160)
    thighs = _ellipse(shape, (40, 40), (25, 25)) | _ellipse(shape, (40, 120), (22, 22))
    wire = np.zeros(shape, dtype=bool)
    wire[:, 5:7, 5:7] = True
    array = np.where(thighs | wire, 50, -1000)
    np.testing.assert_array_equal(body_mask(array, (5.0, 2.0, 2.0)), thighs)


def test_body_cut_by_the_image_border_is_kept_whole():
    assert body_mask(np.full((2, 60, 60), 30), (5.0, 1.0, 1.0)).all()


def test_air_has_no_body_and_a_speck_is_better_than_nothing():
    array = np.full((2, 30, 30), -1000)
    assert not body_mask(array, (5.0, 1.0, 1.0)).any()
    array[:, 9:12, 9:12] = 0  # far thinner than the opening
    assert body_mask(array, (5.0, 1.0, 1.0)).sum() == 2 * 9


def test_nonzero():
    array = np.zeros((1, 5, 5))
    array[0, 1:4, 1:4] = -2.0
    array[0, 2, 2] = 0
    assert nonzero_mask(array).sum() == 9


@given(arrays(bool, (2, 6, 7), elements=st.booleans()))
def test_filling_agrees_with_scipy(mask):
    expected = np.stack([ndimage.binary_fill_holes(plane) for plane in mask])
    np.testing.assert_array_equal(fill_slices(mask), expected)


@given(arrays(bool, (3, 6, 7), elements=st.booleans()), st.floats(0.3, 3.0), st.floats(0.3, 3.0))
def test_dilation_and_erosion_agree_with_scipy(mask, reach_y, reach_x):
    disk = _disk([reach_y, reach_x])
    np.testing.assert_array_equal(_dilated(mask, disk), ndimage.binary_dilation(mask, disk[None]))
    eroded = ndimage.binary_erosion(mask, disk[None], border_value=1)
    np.testing.assert_array_equal(_eroded(mask, disk), eroded)


def _box(mask):
    return [
        (int(np.flatnonzero(found)[0]), int(np.flatnonzero(found)[-1]) + 1) for found in _projections(mask)
    ]


def _projections(mask):
    return [mask.any(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]


def test_arms_beside_the_body_stay():
    """Two arms of 40 mm, 4 % of the trunk each, with air between: a lesion in an arm must not be cropped away."""
    shape = (4, 160, 240)
    trunk = _ellipse(shape, (80, 120), (45, 70))
    arms = _ellipse(shape, (90, 25), (10, 10)) | _ellipse(shape, (90, 215), (10, 10))
    mask = body_mask(np.where(trunk | arms, 50, -1000).astype(np.int16), (5.0, 2.0, 2.0))
    assert 0.02 < arms.sum() / 2 / trunk.sum() < 0.05
    np.testing.assert_array_equal(mask, trunk | arms)


def test_gas_that_is_open_to_the_outside_is_filled(patient):
    """The rectum: 20 mm of gas, with a way of 6 mm to the outside."""
    array, _ = patient
    array[:, 60:120, 99:102] = -1000
    mask = body_mask(array, (5.0, 2.0, 2.0))
    assert mask[:, 64:76, 94:106].all()  # the gas itself
    assert mask[:, 64:106, 99:102].all()  # and the way, but for a rim at the skin
    assert not mask[:, 128:].any()


def test_padding_of_any_value_is_no_body(patient):
    array, _ = patient
    expected = body_mask(array, (5.0, 2.0, 2.0))
    for value in (-1000, -3024, 0):  # 0 HU is as dense as water
        padding = np.full((2, *array.shape[1:]), value, array.dtype)
        mask = body_mask(np.concatenate([padding, array, padding[:1]]), (5.0, 2.0, 2.0))
        np.testing.assert_array_equal(mask[2:-1], expected)
        assert not mask[:2].any()
        assert not mask[-1].any()


def test_metal_streaks_neither_cut_nor_widen_the_body(patient):
    """A hip prosthesis: a black band of 8 mm through the whole body and a white ray of 6 mm into the air."""
    array, _ = patient
    plain = body_mask(array, (5.0, 2.0, 2.0))
    array[1, 68:72, :] = -1000
    array[1, 60:63, :] = 3000
    array[1, 62:78, 60:76] = 3000
    mask = body_mask(array, (5.0, 2.0, 2.0))
    # the ray may add a coarse pixel (2 pixels of 2 mm) where it leaves the body
    assert np.abs(np.array(_box(mask)) - _box(plain)).max() <= 2
    rim = 6  # pixels: 12 mm beside the skin
    assert mask[1, 68:72, 36 + rim : 165 - rim].all()
    assert not mask[1, 60:63, : 35 - rim].any()


def test_the_body_is_found_on_fine_and_coarse_and_uneven_pixels():
    """The same ellipse of 180 x 260 mm on pixels from 0.5 to 4 mm: its area is right to 2 %."""
    for step_y, step_x in ((0.5, 0.5), (0.9766, 0.9766), (1.0, 3.0), (4.0, 4.0)):
        shape = (1, round(240 / step_y), round(300 / step_x))
        body = _ellipse(shape, (120 / step_y, 150 / step_x), (90 / step_y, 130 / step_x))
        mask = body_mask(np.where(body, 40, -1000), (3.0, step_y, step_x))
        area = mask.sum() * step_y * step_x
        assert abs(area / (np.pi * 90 * 130) - 1) < 0.02
        assert (mask & ~body).sum() == 0


def test_float_and_integer_images_have_the_same_body(patient):
    array, _ = patient
    np.testing.assert_array_equal(
        body_mask(array, (5.0, 2.0, 2.0)), body_mask(array.astype(np.float32), (5.0, 2.0, 2.0))
    )


def test_a_thick_board_beside_a_leg_goes():
    """A board of 16 mm, too thick for the opening and 15 % of the leg, but nowhere as thick as a limb."""
    shape = (4, 120, 120)
    leg = _ellipse(shape, (45, 60), (35, 35))
    board = np.zeros(shape, dtype=bool)
    board[:, 95:103, 20:100] = True
    for cut in (120, 100):  # the whole board, and the image ends in the middle of it
        array = np.where(leg | board, 50, -1000).astype(np.int16)[:, :cut]
        np.testing.assert_array_equal(body_mask(array, (5.0, 2.0, 2.0)), leg[:, :cut])


def test_a_narrow_gap_between_body_and_border_is_air():
    array = np.full((2, 60, 60), -1000, np.int16)
    array[:, 3:57, 2:58] = 40  # 6 and 4 mm of air
    np.testing.assert_array_equal(body_mask(array, (5.0, 2.0, 2.0)), array > 0)
