"""Slices without a contour: every second slice, a forgotten one, two lesions."""

import numpy as np
import pytest
from dicom_samples import rectangle

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.dicom.contours import ContourRules, rasterise
from nndet_psma.dataset.dicom.structures import Roi

THIN = Geometry((24, 20, 20), (1.0, 1.0, 1.0))
THICK = Geometry((24, 20, 20), (3.0, 1.0, 1.0))


def draw(*contours, grid=THICK, gaps="ask"):
    """Contours as (slice, low, high) of a square."""
    points = tuple(
        np.reshape(rectangle(k * grid.spacing[0], (low - 0.5, high - 0.5), (low - 0.5, high - 0.5)), (4, 3))
        for k, low, high in contours
    )
    return rasterise(Roi("node", points, "", frozenset(), "rs.dcm"), grid, ContourRules(gaps=gaps))


def widths(mask):
    """Pixels on the diagonal of each slice that is not empty."""
    return {k: int(np.diagonal(one).sum()) for k, one in enumerate(mask) if one.any()}


def same(slices, low=5, high=9):
    return [(k, low, high) for k in slices]


def test_every_second_slice_is_interpolated():
    drawn = draw(*same((3, 5, 7)))
    assert drawn.filled == 2
    assert widths(drawn.mask) == dict.fromkeys(range(3, 8), 4)


def test_shapes_between_are_between():
    # squares of 4, 8 and 4 pixels round one centre, on every third slice
    drawn = draw((3, 8, 12), (6, 6, 14), (9, 8, 12))
    assert drawn.filled == 4
    found = widths(drawn.mask)
    assert sorted(found) == list(range(3, 10))
    assert found[3] == found[9] == 4
    assert found[6] == 8
    assert 4 <= found[4] <= found[5] <= 8


def test_two_lesions_each_on_every_second_slice():
    drawn = draw(*same((3, 5, 7), 2, 5), *same((4, 6, 8), 12, 15))
    assert drawn.filled == 4
    assert drawn.mask[3:8, 2:5, 2:5].all()
    assert drawn.mask[4:9, 12:15, 12:15].all()
    assert drawn.mask.sum() == 2 * 5 * 9


def test_contours_on_every_slice_stay_as_they_are():
    drawn = draw(*same(range(3, 8)), *same((4,), 12, 15))
    assert drawn.filled == 0
    assert drawn.mask.sum() == 5 * 16 + 9


def test_a_forgotten_slice_is_refused_and_named():
    with pytest.raises(
        UserError,
        match=r"rs.dcm: structure 'node' has no contour on slice 6 of 24, but below and above; .*"
        r"found contours on slices 5 and 7 .*--contour-gaps interpolate, or separate",
    ):
        draw(*same((3, 4, 6, 7)))
    with pytest.raises(UserError, match="no contour on slices 5 to 6 of 24"):
        draw(*same((3, 6)))  # 9 mm apart
    with pytest.raises(UserError, match="no contour on slices 9 to 11 of 24"):
        draw(*same((3, 5, 7, 11)), grid=THIN)  # irregular


def test_what_the_user_says_of_a_gap_counts():
    forgotten = same((3, 4, 6, 7))
    assert draw(*forgotten, gaps="interpolate").mask.sum() == 5 * 16
    assert draw(*forgotten, gaps="separate").mask.sum() == 4 * 16
    assert draw(*same((3, 5, 7)), gaps="separate").mask.sum() == 3 * 16


def test_lesions_above_each_other_stay_apart():
    for slices in ((3, 4, 7, 8), (3, 8), (3, 4, 9), (3, 9, 15)):
        drawn = draw(*same(slices))
        assert drawn.filled == 0
        assert sorted(widths(drawn.mask)) == list(slices)


def test_lesions_beside_each_other_are_no_gap():
    drawn = draw(*same((3, 4), 2, 5), *same((6, 7), 12, 15))
    assert drawn.filled == 0
    assert drawn.mask.sum() == 4 * 9


def test_a_lesion_drawn_on_one_slice_is_no_gap():
    assert draw(*same((5,))).mask.sum() == 16
    assert draw().filled == 0
