"""The nodal CTV by rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nndet_psma.roi.vessel_rule import Span, nodal_ctv, vessel_span

SPACING = (3.0, 1.0, 2.0)


def _mask(shape, *boxes):
    mask = np.zeros(shape, dtype=bool)
    for z0, y0, x0, z1, y1, x1 in boxes:
        mask[z0:z1, y0:y1, x0:x1] = True
    return mask


def test_margin_in_millimetres_along_every_axis():
    shape = (9, 31, 15)
    vessels = _mask(shape, (4, 15, 7, 5, 16, 8))
    ctv = nodal_ctv(vessels, np.zeros(shape, bool), SPACING, span=Span(0, 9))
    # 7 mm hold 2 slices of 3 mm, 7 rows of 1 mm, 3 columns of 2 mm on each side of the only voxel
    places = [np.flatnonzero(ctv.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    assert [(p[0], p[-1]) for p in places] == [(2, 6), (8, 22), (4, 10)]
    # in the corner of 2 slices (6 mm) and 4 rows (4 mm) the distance is 7.2 mm
    assert not ctv[6, 19, 7]
    assert ctv[6, 18, 7]


def test_organs_are_carved_out_but_not_the_vessel_itself():
    shape = (5, 21, 21)
    vessels = _mask(shape, (0, 10, 10, 5, 11, 11))
    bone = _mask(shape, (0, 0, 0, 5, 11, 21))
    ctv = nodal_ctv(vessels, bone, (1.0, 1.0, 1.0), span=Span(0, 5))
    assert ctv[:, 10, 10].all()
    assert not (ctv & bone & ~vessels).any()
    assert ctv[2, 11:18, 10].all()


def test_vessels_outside_the_span_do_not_count():
    shape = (12, 21, 21)
    vessels = _mask(shape, (0, 10, 10, 4, 11, 11), (8, 3, 3, 12, 4, 4))
    ctv = nodal_ctv(vessels, np.zeros(shape, bool), (1.0, 1.0, 1.0), span=Span(2, 7))
    assert np.flatnonzero(ctv.any(axis=(1, 2))).tolist() == [2, 3, 4, 5, 6]
    assert not ctv[:, 3, 3].any()


def test_nothing_without_vessels():
    empty = np.zeros((3, 4, 5), bool)
    assert not nodal_ctv(empty, ~empty, SPACING, span=Span(0, 3)).any()


def test_span_between_the_landmarks():
    shape = (20, 4, 4)
    sacrum, femurs = _mask(shape, (8, 0, 0, 15, 2, 2)), _mask(shape, (0, 0, 0, 6, 2, 2))
    nothing = np.zeros(shape, bool)
    assert vessel_span(sacrum, femurs, 20) == Span(6, 15)
    assert vessel_span(nothing, femurs, 20) == Span(6, 20)
    assert vessel_span(sacrum, nothing, 20) == Span(0, 15)
    assert vessel_span(femurs, sacrum, 20) == Span(0, 20)  # upside down: no landmark is believed


@given(st.integers(0, 2**32 - 1), st.floats(0, 8))
def test_inside_the_margin_and_outside_the_organs(seed, margin):
    rng = np.random.default_rng(seed)
    shape = (6, 12, 12)
    vessels, organs = rng.random(shape) < 0.01, rng.random(shape) < 0.2
    ctv = nodal_ctv(vessels, organs, SPACING, span=Span(1, 5), margin_mm=margin)
    inside = np.argwhere(vessels[1:5]) + np.array([1, 0, 0])
    for voxel in np.argwhere(ctv):
        nearest = np.sqrt((((inside - voxel) * SPACING) ** 2).sum(axis=1)).min()
        surrounded = not organs[tuple(voxel)]  # a hole that is no organ may be filled
        assert nearest <= margin + 1e-9 or surrounded
    assert not (ctv & organs & ~vessels).any()
    assert (ctv[1:5] | ~vessels[1:5]).all()


def test_a_hole_is_filled():
    shape = (1, 15, 15)
    ring = _mask(shape, (0, 3, 3, 1, 12, 12)) & ~_mask(shape, (0, 4, 4, 1, 11, 11))
    ctv = nodal_ctv(ring, np.zeros(shape, bool), (1.0, 1.0, 1.0), span=Span(0, 1), margin_mm=1.0)
    assert ctv[0, 7, 7]


@pytest.mark.parametrize("margin", [0.0, 7.0])
def test_margin_zero_is_the_vessel(margin):
    shape = (3, 9, 9)
    vessels = _mask(shape, (1, 4, 4, 2, 5, 5))
    ctv = nodal_ctv(vessels, np.zeros(shape, bool), (10.0, 10.0, 10.0), span=Span(0, 3), margin_mm=margin)
    assert (ctv == vessels).all()
