"""Quantiles of counts equal quantiles of the values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nndet_psma.artifacts.fingerprint import Histogram

values = hnp.arrays(np.int16, st.integers(1, 60), elements=st.integers(-1024, 3000))


@given(values, st.floats(0, 1))
def test_quantile_agrees_with_numpy(sample, q):
    assert Histogram.of(sample).quantile(q) == np.quantile(sample, q, method="inverted_cdf")


@given(st.lists(values, max_size=4))
def test_pooled_is_the_histogram_of_all(parts):
    whole = np.concatenate([*parts, np.zeros(0, np.int16)])
    assert Histogram.pooled([Histogram.of(part) for part in [*parts, np.zeros(0)]]) == Histogram.of(whole)


def test_by_hand():
    found = Histogram.of(np.array([3.4, 4.6, 5.0, 2.6]))  # rounds to 3, 5, 5, 3
    assert found == Histogram(3, [2, 0, 2])
    assert found.total == 4
    assert [found.quantile(q) for q in (0, 0.5, 0.51, 1)] == [3, 3, 5, 5]


@given(values, st.floats(-1100, 3100))
def test_share_above_agrees_with_counting(sample, threshold):
    assert Histogram.of(sample).share_above(threshold) == np.mean(sample > threshold)


def test_from_counts_cuts_empty_ends():
    assert Histogram.from_counts(-3, np.array([0, 0, 4, 0, 1, 0])) == Histogram(-1, [4, 0, 1])
    assert Histogram.from_counts(-3, np.zeros(4, np.int64)) == Histogram()


def test_nothing():
    assert Histogram.of(np.zeros(0)) == Histogram.pooled([]) == Histogram()
    with pytest.raises(ValueError, match="quantile of an empty histogram"):
        Histogram().quantile(0.5)
    with pytest.raises(ValueError, match="share of an empty histogram"):
        Histogram().share_above(0.0)
