"""3D lesions cut into slice boxes, and back to where they came from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nndet_psma.boxes.detections import Detections
from nndet_psma.postproc.steps.box_slicing import slice_lesions

SPACING = (3.0, 1.0, 0.5)


def test_by_hand():
    # z 1.6..3.2 touches slices 1, 2 and 3; z 5..6 is slice 5 alone; the better one comes first
    found = Detections.build(
        [(5, 0, 1, 6, 4, 5), (1.6, 2, 3, 3.2, 6, 8)], [0.4, 0.9], [0, 1], zone_mm=[7.0, 2.0]
    )
    slices, lesions = slice_lesions(found, SPACING)
    assert lesions.scores.tolist() == [0.9, 0.4]
    assert lesions.boxes.tolist() == [[1.6, 2, 3, 3.2, 6, 8], [5, 0, 1, 6, 4, 5]]
    assert lesions.columns["num_slices"].tolist() == [3, 1]
    np.testing.assert_allclose(lesions.columns["extent_mm"], [[4.8, 4, 2.5], [3, 4, 2]])
    assert slices.boxes.tolist() == [[2, 3, 6, 8]] * 3 + [[0, 1, 4, 5]]
    assert slices.columns["slice"].tolist() == [1, 2, 3, 5]
    assert slices.columns["lesion"].tolist() == [0, 0, 0, 1]
    assert slices.scores.tolist() == [0.9, 0.9, 0.9, 0.4]
    assert slices.labels.tolist() == [1, 1, 1, 0]
    assert slices.columns["zone_mm"].tolist() == [2.0, 2.0, 2.0, 7.0]


@pytest.mark.parametrize(
    ("z", "expected"),
    [
        ((2.0, 3.0), [2]),
        ((2.9, 3.1), [2, 3]),
        ((2.0, 2.0), [2]),  # without height: still one slice
        ((2.4, 2.4), [2]),
        ((-1.3, 1.5), [0, 1]),  # there is no slice below 0
        ((-3.0, -2.0), [0]),
    ],
)
def test_slices_that_a_box_touches(z, expected):
    slices, lesions = slice_lesions(Detections.build([(z[0], 0, 0, z[1], 4, 4)], [0.5]), SPACING)
    assert slices.columns["slice"].tolist() == expected
    assert lesions.columns["num_slices"].tolist() == [len(expected)]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40), st.integers(0, 9)), max_size=8))
def test_every_touched_slice_once(rows):
    """Quarters of slices; the reference asks every slice whether it shares depth with the box."""
    found = Detections.build(
        [(z / 4, 0, 0, (z + d) / 4, 3, 3) for z, d, _ in rows], [s / 10 for *_, s in rows]
    )
    slices, lesions = slice_lesions(found, SPACING)
    assert len(lesions) == len(found)
    for index, box in enumerate(lesions.boxes):
        touched = [z for z in range(30) if min(z + 1, box[3]) > max(z, box[0])]
        assert slices.columns["slice"][slices.columns["lesion"] == index].tolist() == touched
    np.testing.assert_array_equal(slices.scores, lesions.scores[slices.columns["lesion"]])


def test_slice_boxes_are_refused():
    with pytest.raises(ValueError, match="cutting into slices needs 3D"):
        slice_lesions(Detections.empty(2), SPACING)
