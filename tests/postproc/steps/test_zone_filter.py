import pytest
from hypothesis import given
from hypothesis import strategies as st
from postproc_cases import A, random_slice_boxes, slice_boxes

from nndet_psma.boxes.detections import Detections
from nndet_psma.postproc.steps.zone_filter import zone_filter


def test_keeps_up_to_and_including_the_distance():
    d = slice_boxes((0, A, 0.9), (0, A, 0.8), (0, A, 0.7), zone_mm=[0.0, 3.24, 3.25])
    assert zone_filter(d, 3.24).tolist() == [True, True, False]


def test_zero_keeps_centres_inside_the_volume():
    d = slice_boxes((0, A, 0.9), (0, A, 0.8), zone_mm=[0.0, 0.1])
    assert zone_filter(d, 0.0).tolist() == [True, False]


def test_none_is_off_and_needs_no_column():
    assert zone_filter(slice_boxes((0, A, 0.9)), None).tolist() == [True]


def test_missing_column():
    with pytest.raises(ValueError, match="'zone_mm'"):
        zone_filter(slice_boxes((0, A, 0.9)), 1.0)


def test_no_boxes():
    assert zone_filter(Detections.empty(2), 1.0).shape == (0,)


@given(random_slice_boxes(), st.integers(0, 8), st.integers(0, 8))
def test_idempotent_and_milder_keeps_more(d, first, second):
    once = d.select(zone_filter(d, first))
    assert zone_filter(once, first).all()
    assert (zone_filter(d, min(first, second)) <= zone_filter(d, max(first, second))).all()
