"""Distances to the CTV equal those of a distance transform of the whole volume."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.spatial import cKDTree

from nndet_psma.planners.fingerprint import ctv_distance
from nndet_psma.planners.fingerprint.ctv_distance import CtvDistance, largest_distance
from nndet_psma.planners.fingerprint.measure_case import tight_parts


def reach(ctv, lesion, spacing):
    parts = tight_parts(ctv)
    distance = CtvDistance(ctv[parts], np.array([part.start for part in parts]), spacing)
    return distance.reach(np.argwhere(lesion))


def reference(ctv, lesion, spacing):
    """By distance transforms of the whole volume, with a ring of no CTV round the image for the depth."""
    outside = ndimage.distance_transform_edt(~ctv, sampling=spacing)[lesion].max()
    ring = np.pad(ctv, 1)
    inside = ndimage.distance_transform_edt(ring, sampling=spacing)[1:-1, 1:-1, 1:-1][lesion].max()
    return outside, inside, ctv[lesion].mean()


shape = (5, 8, 7)
masks = arrays(bool, shape, elements=st.booleans()).filter(lambda m: m.any())
sparse = arrays(bool, shape, elements=st.integers(0, 12).map(lambda n: n == 0)).filter(lambda m: m.any())
steps = st.sampled_from([1.0, 0.9766, 2.0, 3.27, 5.0])


@settings(deadline=None, max_examples=150)
@given(st.one_of(masks, sparse), st.one_of(masks, sparse), st.tuples(steps, steps, steps))
def test_any_masks(ctv, lesion, spacing):
    assert reach(ctv, lesion, spacing) == pytest.approx(reference(ctv, lesion, spacing))


@pytest.mark.parametrize(
    ("ctv", "lesion"),
    [
        (np.s_[10:20, 10:30, 10:30], np.s_[12:15, 25:34, 12:16]),  # across the surface
        (np.s_[10:20, 10:30, 10:30], np.s_[12:15, 15:20, 12:16]),  # inside
        (np.s_[0:10, 0:8, 0:8], np.s_[26:30, 36:40, 35:39]),  # far outside, in the opposite corner
        (np.s_[0:30, 0:20, :], np.s_[0:3, 0:9, 0:9]),  # CTV on the border, lesion in the corner
        (np.s_[:, :, :], np.s_[5:20, 5:20, 5:20]),  # CTV everywhere
        (np.s_[15:16, 20:21, 20:21], np.s_[:, :, :]),  # one voxel of CTV, lesion everywhere
        (np.s_[2:28, 3:37, 3:37], np.s_[1:29, 1:39, 1:39]),  # a large lesion round a large CTV
    ],
)
@pytest.mark.parametrize("spacing", [(3.0, 0.9766, 0.9766), (1.0, 2.0, 4.0)])
def test_blocks(ctv, lesion, spacing):
    masks = [np.zeros((30, 40, 40), bool) for _ in range(2)]
    masks[0][ctv], masks[1][lesion] = True, True
    assert reach(*masks, spacing) == pytest.approx(reference(*masks, spacing))


def test_by_hand():
    """CTV columns 2 to 5 of a row of ten, lesion columns 4 to 8: 3 steps out; column 4 is 2 steps from column 6."""
    ctv, lesion = np.zeros((1, 1, 10), bool), np.zeros((1, 1, 10), bool)
    ctv[..., 2:6] = lesion[..., 4:9] = True
    # 10 mm beyond the only row and slice there is no CTV either, but columns are nearer
    assert reach(ctv, lesion, (10.0, 10.0, 2.0)) == (6.0, 4.0, 0.4)


@settings(deadline=None, max_examples=40)
@given(
    arrays(np.float64, st.tuples(st.integers(1, 60), st.just(3)), elements=st.floats(-50, 50)),
    arrays(np.float64, st.tuples(st.integers(1, 9), st.just(3)), elements=st.floats(-50, 50)),
    st.lists(st.floats(0.5, 40), max_size=3),
)
def test_largest_distance_agrees_with_asking_every_point(points, others, cells):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ctv_distance, "_FEW", 4)
        found = largest_distance(points, cKDTree(others), cells)
    assert found == pytest.approx(np.linalg.norm(points[:, None] - others[None], axis=2).min(axis=1).max())
