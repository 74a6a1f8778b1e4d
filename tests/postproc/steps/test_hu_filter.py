import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from postproc_cases import A, random_slice_boxes, slice_boxes

from nndet_psma.boxes.detections import Detections
from nndet_psma.postproc.steps.hu_filter import QUANTILES, hu_filter, quantile_index

RISING = np.arange(10, 110, 10, dtype=np.float32)  # 10 HU at quantile 0.1, 20 at 0.2, ... 100 at 1.0


def test_rejects_only_above_the_threshold():
    d = slice_boxes((0, A, 0.9), (0, A, 0.8), hu_quantiles=np.stack([RISING, RISING + 1]))
    assert hu_filter(d, 50, 0.5).tolist() == [True, False]


def test_higher_quantile_filters_more():
    d = slice_boxes((0, A, 0.9), hu_quantiles=RISING[None])
    kept = [bool(hu_filter(d, 80, q)[0]) for q in QUANTILES]
    assert kept == [True] * 8 + [False] * 2  # 90 and 100 HU are above 80


def test_unknown_hu_is_kept():
    d = slice_boxes((0, A, 0.9), hu_quantiles=np.full((1, 10), np.nan))
    assert hu_filter(d, -1000, 1.0).tolist() == [True]


def test_none_is_off_and_needs_no_column():
    assert hu_filter(slice_boxes((0, A, 0.9)), None, 0.5).tolist() == [True]


def test_missing_column():
    with pytest.raises(ValueError, match="'hu_quantiles'"):
        hu_filter(slice_boxes((0, A, 0.9)), 80, 0.5)


def test_no_boxes():
    assert hu_filter(Detections.empty(2), 80, 0.5).shape == (0,)


def test_quantile_forgives_binary_rounding():
    assert quantile_index(0.1 + 0.2) == 2
    assert [quantile_index(q) for q in QUANTILES] == list(range(10))


@pytest.mark.parametrize("quantile", [0.0, 0.25, 1.1, float("nan")])
def test_quantile_outside_the_table(quantile):
    with pytest.raises(ValueError, match=r"hu_quantile must be one of 0.1, 0.2"):
        hu_filter(Detections.empty(2), None, quantile)


@given(random_slice_boxes(), st.integers(0, 120), st.sampled_from(QUANTILES))
def test_idempotent(d, threshold, quantile):
    once = d.select(hu_filter(d, threshold, quantile))
    assert hu_filter(once, threshold, quantile).all()
