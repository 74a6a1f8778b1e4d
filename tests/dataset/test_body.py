"""The body region."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from nndet_psma.dataset.body import body_mask, fill_slices, nonzero_mask


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
