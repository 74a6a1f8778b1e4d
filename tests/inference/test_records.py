"""Records: candidates and slice boxes on the grid of the labels, examined slices, lesions nobody looked at."""

from __future__ import annotations

import numpy as np
import pytest

from nndet_psma.artifacts.prediction import PredictedLesion, Prediction, SliceBox
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.evaluation.detection.record import truth_from_instances
from nndet_psma.inference.records import make_record

GRID = Geometry((8, 10, 12), (4.0, 2.0, 2.0))


def _truth(*blobs):
    instances = np.zeros(GRID.shape, np.uint8)
    for number, (z0, z1, y0, y1, x0, x1) in enumerate(blobs, start=1):
        instances[z0:z1, y0:y1, x0:x1] = number
    return truth_from_instances(instances, {i: 0 for i in range(1, len(blobs) + 1)}, GRID.spacing)


def _lesion(box, slices, score=0.9):
    parts = [SliceBox(b, s, 1) for b, s in slices]
    return PredictedLesion(score, 0, "node", box, (0, 0, 0), (0, 0, 0), parts)


def _prediction(lesions, candidates=None, image=GRID, examined=(2, 0, 0, 6, 10, 12)):
    return Prediction(
        "case", "made", "ctv", image, examined, lesions, lesions if candidates is None else candidates
    )


def _record(prediction, truth):
    return make_record(prediction, truth, GRID, "patient", slice_iou=0.1)


LESION = _lesion((3, 2, 3, 5, 5, 7), [((3, 2, 3, 4, 5, 7), 0.9), ((4, 2, 3, 5, 5, 7), 0.7)])


def test_hit():
    record = _record(_prediction([LESION]), _truth((3, 5, 2, 5, 3, 7)))
    assert (record.case_id, record.patient_id) == ("case", "patient")
    assert [(p.score, p.box) for p in record.predictions] == [(0.9, (3, 2, 3, 5, 5, 7))]
    assert record.claims(0.5) == (0,)
    assert [p.hits for p in record.slices.predictions] == [(0,), (0,)]


def test_images_are_the_examined_slices():
    """Slices 2..5 were examined: four images, numbered from 0."""
    record = _record(_prediction([LESION]), _truth((3, 5, 2, 5, 3, 7)))
    assert record.slices.num_slices == 4
    assert [p.slice_index for p in record.slices.predictions] == [1, 2]
    assert [t.slice_index for t in record.slices.truth] == [1, 2]


def test_lesion_outside_what_was_examined_is_missed():
    """Slices 6 and 7 hold a lesion that no search saw: they count as images, and it as missed."""
    record = _record(_prediction([LESION]), _truth((3, 5, 2, 5, 3, 7), (6, 8, 1, 3, 1, 3)))
    assert record.slices.num_slices == 6
    assert len(record.lesions) == 2
    assert set(record.claims(0.1)) == {0}
    assert {hit for p in record.slices.predictions for hit in p.hits} == {0}
    assert [t.slice_index for t in record.slices.truth if t.lesion == 1] == [4, 5]


def test_candidates_rank_and_lesions_decide():
    weak = _lesion((5, 6, 6, 6, 8, 8), [((5, 6, 6, 6, 8, 8), 0.1)], score=0.1)
    record = _record(_prediction([LESION], [LESION, weak]), _truth((3, 5, 2, 5, 3, 7)))
    assert [p.score for p in record.predictions] == [0.9, 0.1]
    assert record.claims(0.1) == (0, -1)
    assert len(record.slices.predictions) == 2  # the weak one was not accepted
    # slices 2 to 5 were examined: the weak candidate ranks its image all the same
    assert record.slices.image_scores == (0.0, 0.9, 0.7, 0.1)
    assert [p.score for p in record.accepted.predictions] == [0.9]
    assert record.accepted.matches["0.10"] == (0,)


def test_images_hold_candidates_beyond_what_was_examined():
    """Slices 2 to 5 were examined; a candidate on slice 6 makes it a fifth image."""
    far = _lesion((6, 6, 6, 7, 8, 8), [((6, 6, 6, 7, 8, 8), 0.2)], score=0.2)
    record = _record(_prediction([], [far]), _truth())
    assert record.slices.image_scores == (0.0, 0.0, 0.0, 0.0, 0.2)
    assert record.accepted.predictions == ()


def test_image_with_flipped_rows():
    """The image counts rows from the other side: its rows 5..8 are the labels' 2..5."""
    image = Geometry(GRID.shape, GRID.spacing, (0, 18, 0), (1, 0, 0, 0, -1, 0, 0, 0, 1))
    there = _lesion((3, 5, 3, 5, 8, 7), [((3, 5, 3, 4, 8, 7), 0.9)])
    examined = (2, 1, 0, 6, 10, 12)
    record = _record(_prediction([there], image=image, examined=examined), _truth((3, 5, 2, 5, 3, 7)))
    assert record.predictions[0].box == pytest.approx((3, 2, 3, 5, 5, 7))
    assert record.claims(0.5) == (0,)
    assert record.slices.predictions[0].box == pytest.approx((2, 3, 5, 7))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (3.0, 4.0, [3]),
        (2.6, 4.4, [3]),  # centres 3.5 alone
        (2.4, 4.6, [2, 3, 4]),  # centres 2.5, 3.5, 4.5
        (3.6, 4.2, [3]),  # no centre: the slice of its middle
        (7.8, 9.0, [7]),  # beyond the last slice
    ],
)
def test_thick_or_thin_slice_boxes(low, high, expected):
    """A box that is not one label slice thick counts on the slices whose centres it covers."""
    lesion = _lesion((low, 2, 3, high, 5, 7), [((low, 2, 3, high, 5, 7), 0.9)])
    prediction = _prediction([lesion], examined=(0, 0, 0, 8, 10, 12))
    found = [p.slice_index for p in _record(prediction, _truth((3, 5, 2, 5, 3, 7))).slices.predictions]
    assert found == expected


def test_nothing_found_and_nothing_there():
    record = _record(_prediction([]), _truth())
    assert (len(record.lesions), len(record.predictions), record.slices.num_slices) == (0, 0, 4)
    assert record.claims(0.1) == ()


def test_a_volume_box_counts_once_on_every_slice():
    """The image has half as many slices as the detector's grid: two of its slices fall on each of 3 and 4."""
    box = (3, 2, 3, 5, 5, 7)
    halves = [((z, *box[1:3], z + 0.5, *box[4:]), 0.9) for z in (3.0, 3.5, 4.0, 4.5)]
    record = _record(_prediction([_lesion(box, halves)]), _truth((3, 5, 2, 5, 3, 7)))
    assert [(p.slice_index, p.hits) for p in record.slices.predictions] == [(1, (0,)), (2, (0,))]


def test_two_lesions_and_different_boxes_all_count():
    box = (3, 2, 3, 5, 5, 7)
    halves = [((3.0, 2, 3, 3.5, 5, 7), 0.9), ((3.5, 2, 3, 4.0, 5, 6), 0.8)]
    record = _record(
        _prediction([_lesion(box, halves), _lesion(box, halves[:1])]), _truth((3, 5, 2, 5, 3, 7))
    )
    assert [p.slice_index for p in record.slices.predictions] == [1, 1, 1]
