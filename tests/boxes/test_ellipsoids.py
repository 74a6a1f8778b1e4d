"""Ellipsoids in boxes."""

import numpy as np

from nndet_psma.boxes.ellipsoids import ellipsoid_mask


def test_voxels_whose_centres_lie_in_it():
    """A ball of diameter 4: of the 64 voxels of its box those within 2 of the middle."""
    mask = ellipsoid_mask([(2, 3, 4, 6, 7, 8)], (10, 10, 10))
    box = mask[2:6, 3:7, 4:8]
    assert mask.sum() == box.sum()

    squares = np.add.outer(
        np.add.outer(*[np.array([2.25, 0.25, 0.25, 2.25])] * 2), np.array([2.25, 0.25, 0.25, 2.25])
    )
    assert np.array_equal(box > 0, squares <= 4)
    assert int((box > 0).sum()) == 32  # 8 in the middle, 24 on the faces' centres


def test_the_better_box_keeps_its_voxels():
    mask = ellipsoid_mask([(0, 0, 0, 4, 4, 4), (0, 0, 2, 4, 4, 6)], (4, 4, 8))
    alone = ellipsoid_mask([(0, 0, 0, 4, 4, 4)], (4, 4, 8))
    assert np.array_equal(mask == 1, alone == 1)
    assert (mask == 2).any()
    assert set(np.unique(ellipsoid_mask([(0, 0, 0, 4, 4, 4)] * 2, (4, 4, 8)))) == {0, 1}


def test_a_thin_box_and_one_over_the_border():
    thin = ellipsoid_mask([(2.2, 2.2, 2.2, 2.4, 2.4, 2.4)], (5, 5, 5))
    assert np.argwhere(thin).tolist() == [[2, 2, 2]]
    over = ellipsoid_mask([(-3, -3, -3, 1, 1, 1)], (5, 5, 5))
    assert over[0, 0, 0] == 1
    assert ellipsoid_mask([], (3, 3, 3)).sum() == 0
