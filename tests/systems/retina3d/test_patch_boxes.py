"""Boxes of overlapping patches become the boxes of a case: duplicates, stumps, weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nndet_psma.systems.retina3d.join_patches import centre_weights, join_patches, place_boxes

SHAPE = (20, 60, 60)
REGION = (0, 0, 0, 20, 40, 60)
LEFT, RIGHT = (0, 0, 0, 20, 40, 40), (0, 0, 20, 20, 40, 60)


def placed(patch, *rows, region=REGION, labels=None):
    """Rows ``(z0, y0, x0, z1, y1, x1, score)`` in store voxels."""
    table = np.array(rows, dtype=float).reshape(-1, 7)
    labels = np.zeros(len(table), int) if labels is None else np.array(labels)
    return place_boxes(table[:, :6] - np.tile(patch[:3], 2), table[:, 6], labels, patch, region)


def joined(*parts):
    return join_patches(list(parts), SHAPE)


def test_weights_by_hand():
    """Sides 20 x 40 x 40: half a diagonal is 30; 15 along it are half of the way, 30 all, 24 four fifths."""
    direction = np.array([1, 2, 2]) / 3
    centres = np.array([10, 20, 20]) + direction * np.array([[0], [15], [30], [24]])
    boxes = np.concatenate([centres - 1, centres + 1], axis=1)
    weights = centre_weights(boxes, np.array([20, 40, 40]))
    np.testing.assert_allclose(weights, [1, 1, 0.5, 0.7])


def test_boxes_come_to_their_place():
    part = placed(RIGHT, (2, 3, 34, 5, 6, 38, 0.5))
    assert part.boxes.tolist() == [[2, 3, 34, 5, 6, 38]]
    found = joined(part)
    assert found.boxes.tolist() == [[2, 3, 34, 5, 6, 38]]
    assert found.scores.tolist() == [0.5]


def test_a_cut_box_ends_at_an_inner_face():
    """The left patch ends at x = 40 with the region going on; its other faces are the region's own border."""
    part = placed(
        LEFT,
        (2, 3, 34, 5, 6, 39.5, 0.5),  # at the inner face
        (2, 3, 34, 5, 6, 38, 0.5),
        (0, 0, 0, 5, 6, 8, 0.5),  # in the region's corner
        (2, 34, 10, 5, 40, 18, 0.5),
    )
    assert part.cut.tolist() == [1, 0, 0, 0]
    assert placed(RIGHT, (2, 3, 20, 5, 6, 25, 0.5)).cut.tolist() == [1]


def test_one_lesion_in_two_patches_is_one_box():
    first, second = (2, 10, 24, 6, 16, 30, 0.6), (2, 11, 25, 6, 16, 31, 0.8)
    found = joined(placed(LEFT, first), placed(RIGHT, second))
    assert found.boxes.tolist() == [list(second[:6])]
    assert found.scores.tolist() == [0.8]


def test_two_boxes_of_one_patch_stay_two():
    """The network has judged them; how far they overlap is for the sweep to say."""
    pair = (2, 10, 24, 6, 16, 30, 0.6), (2, 11, 25, 6, 16, 31, 0.8)
    assert len(joined(placed(LEFT, *pair))) == 2


def test_the_better_seen_box_wins_over_a_higher_score():
    """Both boxes lie round (3, 3, 37), 25.04 of 30 from the left centre (10, 20, 20), so with weight 0.665.

    It is 18.63 of 30 from the right centre (10, 20, 40), so 0.879: 0.72 * 0.879 beats 0.8 * 0.665.
    """
    box = (2, 2, 36, 4, 4, 38)
    assert centre_weights(np.array([box], float), np.array([20, 40, 40]))[0] == pytest.approx(0.665, abs=1e-3)
    found = joined(placed(LEFT, (*box, 0.8)), placed(RIGHT, (*box, 0.72)))
    assert found.scores.tolist() == [0.72]


def test_a_stump_gives_way_to_the_whole():
    """The stump, 34..40, has an IoU of 6 / 16 with 34..50 here, and with a thin one less than the 0.2 of doubles."""
    whole = (2, 10, 34, 6, 16, 50, 0.5)
    for stump in ((2, 10, 34, 6, 16, 40, 0.9), (2, 10, 38, 6, 16, 40, 0.9)):
        found = joined(placed(LEFT, stump), placed(RIGHT, whole))
        assert found.boxes.tolist() == [list(whole[:6])]
        assert found.scores.tolist() == [0.5]


def test_a_stump_stands_where_nothing_sees_the_whole():
    stump = (2, 10, 34, 6, 16, 40, 0.9)
    poor = (2, 10, 34, 6, 16, 50, 0.01)  # under half of the stump's: it goes, and the lesion is still one box
    assert joined(placed(LEFT, stump)).boxes.tolist() == [list(stump[:6])]
    assert joined(placed(LEFT, stump), placed(RIGHT, poor)).boxes.tolist() == [list(stump[:6])]


def test_classes_do_not_compete():
    box = (2, 10, 34, 6, 16, 40, 0.9)
    found = joined(placed(LEFT, box, labels=[0]), placed(RIGHT, box, labels=[1]))
    assert sorted(found.labels.tolist()) == [0, 1]


def test_boxes_are_clipped_to_the_case_and_padding_is_no_place():
    patch = (-4, -10, 0, 24, 30, 40)
    part = placed(patch, (-3, -8, 1, 2, 5, 9, 0.7), (-4, -9, 1, -1, -2, 9, 0.9), (-4, 0, 0, 0.3, 9, 9, 0.8))
    assert joined(part).boxes.tolist() == [[0, 0, 1, 2, 5, 9]]


def test_nothing_found():
    assert joined().boxes.shape == (0, 6)
    assert joined(placed(LEFT), placed(RIGHT)).boxes.shape == (0, 6)


ROW = st.tuples(
    st.integers(0, 15), st.integers(0, 30), st.integers(0, 30), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9),
    st.floats(0.01, 1),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), ROW), max_size=12, unique_by=lambda pair: pair[1][6]))
def test_joining_chooses_among_the_boxes(rows):
    parts = {}
    for patch in (LEFT, RIGHT):
        own = [row for left, row in rows if left == (patch is LEFT)]
        shift = np.array(patch[:3])
        parts[patch] = placed(
            patch, *((*(np.array(r[:3]) + shift), *(np.array(r[:3]) + shift + r[3:6]), r[6]) for r in own)
        )
    found = joined(parts[LEFT], parts[RIGHT])
    given_boxes = {(*b, s) for part in parts.values() for b, s in zip(part.boxes.tolist(), part.scores, strict=True)
                   for b in [tuple(b)]}  # fmt: skip
    kept = {(*b, s) for b, s in zip(map(tuple, found.boxes.tolist()), found.scores, strict=True)}
    assert kept <= given_boxes
    assert (np.diff(found.scores) <= 0).all()
    again = joined(parts[RIGHT], parts[LEFT])
    trust = np.concatenate([p.scores * p.weights * 0.5**p.cut for p in parts.values()])
    if len(np.unique(trust.round(9))) == len(trust):  # without ties the order of the patches does not matter
        assert np.array_equal(again.boxes, found.boxes)
    if rows:
        assert len(found) > 0
