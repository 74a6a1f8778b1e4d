"""Distance to the CTV against all pairs of voxels, and where it stops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nndet_psma.preprocess.distance import BEYOND, UNIT_MM, reach_mm, signed_distance


def _all_pairs(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """mm from every voxel to the nearest voxel of the other kind, negative inside; inf where there is none."""
    places = np.argwhere(np.ones_like(mask)) * spacing
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    flat = mask.ravel()
    other = np.where(flat[:, None] != flat[None], apart, np.inf).min(axis=1)
    return np.where(flat, -other, other).reshape(mask.shape)


@settings(max_examples=40, deadline=None)
@given(
    arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 7))),
    st.tuples(*[st.sampled_from([0.37, 0.648, 1.0, 2.5, 5.0])] * 3),
    st.sampled_from([2.0, 7.3, 60.0]),
)
def test_equals_all_pairs_up_to_the_reach(mask, spacing, reach):
    found = signed_distance(mask, spacing, reach).astype(float) * UNIT_MM
    true = _all_pairs(mask, spacing)
    if not mask.any():
        assert (found == BEYOND * UNIT_MM).all()
        return
    limit = round(reach / UNIT_MM) * UNIT_MM
    near = (true <= limit - 0.005) & np.isfinite(true)
    # half a hundredth from rounding, and the precision of single floats
    np.testing.assert_allclose(found[near], true[near], atol=0.005 + 1e-4)
    assert (found[true > limit + 0.006] == BEYOND * UNIT_MM).all()
    assert ((found < 0) == mask).all()


def test_rounds_to_the_nearest_hundredth():
    mask = np.zeros((1, 1, 4), bool)
    mask[0, 0, 0] = True
    # 0.648 mm is 64.8 hundredths: 65, not 64; then 1.296 and 1.944
    assert signed_distance(mask, (1.0, 1.0, 0.648), 60.0).ravel().tolist() == [-65, 65, 130, 194]


def test_a_mask_that_fills_everything_has_no_outside():
    assert (signed_distance(np.ones((2, 3, 3), bool), (1.0, 1.0, 1.0), 60.0) == -BEYOND).all()


def test_long_distances_do_not_overflow():
    mask = np.zeros((1, 1, 500), bool)
    mask[0, 0, 0] = True
    found = signed_distance(mask, (1.0, 1.0, 1.0), 400.0).ravel()
    assert found[327] == 32700  # 327 mm fit into 16 bits
    assert (found[328:] == BEYOND).all()


@pytest.mark.parametrize(
    ("margin", "reach"), [(0.0, 60.0), (6.48, 60.0), (50.0, 60.0), (50.01, 120.0), (110.0, 120.0)]
)
def test_the_reach_covers_margin_and_zone(margin, reach):
    assert reach_mm(margin) == reach
