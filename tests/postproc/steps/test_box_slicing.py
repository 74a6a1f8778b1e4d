"""3D lesions cut into slice boxes, and back to where they came from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nndet_psma.boxes.detections import Detections
from nndet_psma.postproc.steps.box_slicing import slice_lesions

SPACING = (3.0, 1.0, 0.5)


def test_by_hand():
    # z 1.4..3.2 holds the centres 1.5 and 2.5 and merely touches slice 3; z 5..6 is slice 5 alone; the better one first
    found = Detections.build(
        [(5, 0, 1, 6, 4, 5), (1.4, 2, 3, 3.2, 6, 8)], [0.4, 0.9], [0, 1], zone_mm=[7.0, 2.0]
    )
    slices, lesions = slice_lesions(found, SPACING)
    assert lesions.scores.tolist() == [0.9, 0.4]
    assert lesions.boxes.tolist() == [[1.4, 2, 3, 3.2, 6, 8], [5, 0, 1, 6, 4, 5]]
    assert lesions.columns["num_slices"].tolist() == [2, 1]
    np.testing.assert_allclose(lesions.columns["extent_mm"], [[5.4, 4, 2.5], [3, 4, 2]])
    assert slices.boxes.tolist() == [[2, 3, 6, 8]] * 2 + [[0, 1, 4, 5]]
    assert slices.columns["slice"].tolist() == [1, 2, 5]
    assert slices.columns["lesion"].tolist() == [0, 0, 1]
    assert slices.scores.tolist() == [0.9, 0.9, 0.4]
    assert slices.labels.tolist() == [1, 1, 0]
    assert slices.columns["zone_mm"].tolist() == [2.0, 2.0, 7.0]


@pytest.mark.parametrize(
    ("z", "expected"),
    [
        ((2.0, 3.0), [2]),
        ((2.3, 5.3), [2, 3, 4]),  # centres 2.5, 3.5, 4.5
        ((1.7, 4.7), [2, 3, 4]),  # a lesion of slices 2 to 4, drawn 0.3 too low
        ((2.5, 3.5), [2]),  # a centre on the lower edge is inside, on the upper one outside
        ((2.9, 3.1), [3]),  # no centre: the slice of its middle
        ((2.8, 3.1), [2]),
        ((2.0, 2.0), [2]),  # without height: still one slice
        ((2.4, 2.4), [2]),
        ((-1.3, 1.6), [0, 1]),  # there is no slice below 0
        ((-1.3, 0.4), [0]),
        ((-3.0, -2.0), [0]),
    ],
)
def test_slices_whose_centre_lies_in_a_box(z, expected):
    slices, lesions = slice_lesions(Detections.build([(z[0], 0, 0, z[1], 4, 4)], [0.5]), SPACING)
    assert slices.columns["slice"].tolist() == expected
    assert lesions.columns["num_slices"].tolist() == [len(expected)]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40), st.integers(0, 9)), max_size=8))
def test_every_covered_slice_once(rows):
    """Quarters of slices; the reference asks every slice whether its centre lies in the box."""
    found = Detections.build(
        [(z / 4, 0, 0, (z + d) / 4, 3, 3) for z, d, _ in rows], [s / 10 for *_, s in rows]
    )
    slices, lesions = slice_lesions(found, SPACING)
    assert len(lesions) == len(found)
    for index, box in enumerate(lesions.boxes):
        covered = [z for z in range(30) if box[0] <= z + 0.5 < box[3]]
        expected = covered or [int((box[0] + box[3]) / 2)]
        assert slices.columns["slice"][slices.columns["lesion"] == index].tolist() == expected
    np.testing.assert_array_equal(slices.scores, lesions.scores[slices.columns["lesion"]])


def test_shifted_perfect_lesions_keep_their_precision():
    """Lesions of three slices, drawn 0.3 slice too high or too low: they keep their slices.

    Counted by touch each would have a fourth slice box, off its lesion: a precision of 3 / 4.
    """
    starts = (2, 8, 14, 20)
    shifts = (0.3, -0.3, 0.3, -0.3)
    drawn = [(z + d, 0, 0, z + 3 + d, 4, 4) for z, d in zip(starts, shifts, strict=True)]
    slices, _ = slice_lesions(Detections.build(drawn, [0.9, 0.8, 0.7, 0.6]), SPACING)
    true = {z + step for z in starts for step in range(3)}
    assert sorted(slices.columns["slice"].tolist()) == sorted(true)


def test_slice_boxes_are_refused():
    with pytest.raises(ValueError, match="cutting into slices needs 3D"):
        slice_lesions(Detections.empty(2), SPACING)
