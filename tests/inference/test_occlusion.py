"""Where a classifier looks, with networks whose answer is known."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from crop_plan import crop_plan, flat

from nndet_psma.inference.occlusion import occlusion

PLAN = flat(crop_plan(), dimension="3d")  # sees 8 of 12 x 16 x 16 voxels of 1 mm: from 2, 4, 4 on


@dataclass
class Weighted:
    """Two networks that add up weighted voxels: the mean of both has the weights."""

    weights: Any
    plan: Any = PLAN

    def voting(self, ct, codes):
        sums = np.array([(each * self.weights).sum() for each in ct], dtype=float)
        return np.stack([sums + 3, sums - 3])


def crop(inside=(slice(4, 6), slice(6, 8), slice(6, 8))):
    ct, codes = np.zeros((12, 16, 16), np.int16), np.full((12, 16, 16), 2, np.uint8)
    codes[inside] |= 1
    return ct, codes


def test_a_planted_signal_is_found():
    """Cubes of 2 mm: the one at (4, 6, 6) is the object, with 10 HU that count twice; elsewhere 5 HU counts once."""
    ct, codes = crop()
    ct[4:6, 6:8, 6:8] = 10
    ct[8, 10, 10] = 5
    weights = np.zeros(ct.shape)
    weights[4:6, 6:8, 6:8], weights[8, 10, 10] = 2.0, 1.0
    found = occlusion(Weighted(weights), ct, codes, cube_mm=2.0)
    expected = np.zeros(ct.shape)
    expected[4:6, 6:8, 6:8] = 8 * 10 * 2  # painted over with the median, 0
    expected[8:10, 10:12, 10:12] = 5
    assert found.drop == pytest.approx(expected)
    assert found.peak_inside
    assert found.inside == pytest.approx(160 / 165)
    # 8, 10, 10 lies sqrt(9 + 9 + 9) = 5.2 mm from 5, 7, 7
    assert (found.ring, found.outside) == (0.0, pytest.approx(5 / 165))


def test_a_signal_beside_the_object_is_not_inside():
    ct, codes = crop()
    ct[4, 8, 6] = 7  # next to the object
    weights = np.zeros(ct.shape)
    weights[4, 8, 6] = -1.0
    found = occlusion(Weighted(weights), ct, codes, cube_mm=2.0)
    assert found.drop.min() == -7
    assert not found.peak_inside
    assert found.inside == 0
    assert found.ring == pytest.approx(1.0)  # the voxels of its cube lie 1 to 2 mm away


def test_nothing_beyond_what_is_seen_and_nothing_from_nothing():
    ct, codes = crop()
    found = occlusion(Weighted(np.zeros(ct.shape)), ct, codes)
    assert (found.drop == 0).all()
    assert (found.inside, found.ring, found.outside) == (0, 0, 0)
    ct[0, 0, 0] = 100  # in the margin
    found = occlusion(Weighted(np.ones(ct.shape)), ct, codes)
    assert (found.drop == 0).all()
