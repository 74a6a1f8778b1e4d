"""Statistics of regions: counted ones equal numpy's on the voxels, sampled ones come near."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nndet_psma.artifacts.fingerprint import Histogram, IntensityStatistics
from nndet_psma.planners.fingerprint import region_statistics as module
from nndet_psma.planners.fingerprint.region_statistics import (
    BODY,
    CTV,
    LESION,
    CountedValues,
    countable,
    histogram_statistics,
    sampled_statistics,
    to_hu,
)

SHAPE = (3, 4, 5)
images = arrays(np.int16, SHAPE, elements=st.integers(-1024, 3071))
codes = arrays(np.uint8, SHAPE, elements=st.integers(0, 7))
REGIONS = {
    "lesion": lambda code: code & LESION > 0,
    "ctv": lambda code: (code & CTV > 0) & (code & LESION == 0),
    "body": lambda code: code & BODY > 0,
    "outside": lambda code: code & BODY == 0,
}


def check(found: IntensityStatistics, values: np.ndarray) -> None:
    assert found.voxels == values.size
    assert (found.minimum, found.maximum) == (values.min(), values.max())
    assert found.mean == pytest.approx(values.mean(), rel=1e-6, abs=1e-6)
    assert found.std == pytest.approx(values.std(), rel=1e-6, abs=1e-6)
    percentiles = (found.percentile_00_5, found.percentile_50, found.percentile_99_5)
    assert percentiles == tuple(np.percentile(values, [0.5, 50, 99.5], method="inverted_cdf"))
    assert found.step == 1


@given(images, codes)
def test_counted_and_sampled_statistics_of_few_voxels_are_exact(image, code):
    """Few voxels are all looked at, so both ways must give what numpy gives."""
    for found in (CountedValues(image, code).statistics(), sampled_statistics(image, code)):
        for name, inside in REGIONS.items():
            values = image[inside(code)].astype(np.float64)
            assert (name in found) == (values.size > 0)
            if values.size:
                check(found[name], values)


@given(images, codes)
def test_histograms_hold_every_voxel_of_their_region(image, code):
    counted = CountedValues(image, code)
    assert counted.histogram("lesion") == Histogram.of(image[code & LESION > 0])
    for bit in (BODY, CTV):
        expected = Histogram.of(image[(code & bit > 0) & (code & LESION == 0)])
        assert counted.search_histogram(bit) == expected


def test_large_float_images_are_sampled_evenly_and_always_alike(monkeypatch):
    """A ramp along every row, 36 voxels long: a step of 6 would see six columns only; the median must be right."""
    monkeypatch.setattr(module, "_SAMPLE", 1000)
    image = np.broadcast_to(np.arange(36, dtype=np.float32), (20, 10, 36)).copy()
    code = np.full(image.shape, BODY, np.uint8)
    code[0, 0, :5] = BODY | LESION
    found = sampled_statistics(image, code)
    assert found == sampled_statistics(image, code)
    assert (found["body"].voxels, found["body"].step) == (7200, 7)  # 7200 / 1000, no factor of 36 or 10
    assert (found["body"].minimum, found["body"].maximum) == (0, 35)
    assert found["body"].mean == pytest.approx(17.5, abs=0.2)
    assert found["body"].percentile_50 in (17, 18)
    assert (found["lesion"].voxels, found["lesion"].step, found["lesion"].mean) == (5, 1, 2.0)


def test_a_region_that_a_step_misses_is_looked_at_whole(monkeypatch):
    monkeypatch.setattr(module, "_SAMPLE", 1)
    code = np.zeros((2, 3, 5), np.uint8)
    code[0, 0, 1:4] = BODY  # 3 voxels, a step of 4 (3 has a factor in common with 3 rows) hits 0, 4, 8 ...
    found = sampled_statistics(np.ones(code.shape), code)["body"]
    assert (found.voxels, found.step, found.mean) == (3, 1, 1.0)


def test_what_can_be_counted():
    assert countable(np.array([[[-1024, 3071]]], np.int16))
    assert countable(np.array([[[0, 65535]]], np.uint16))
    assert not countable(np.array([[[0, 65536]]], np.int32))
    assert not countable(np.array([[[0.0, 1.0]]]))


def test_ct_becomes_whole_hu():
    image = np.array([[[-0.6, 0.4, 40.5, 41.5, 1e9, -1e9]]], np.float32)
    found = to_hu(image)
    assert found.dtype == np.int16
    assert found.ravel().tolist() == [-1, 0, 40, 42, 32767, -32768]  # halves to the even number
    ready = np.zeros((1, 2, 2), np.int16)
    assert to_hu(ready) is ready


def test_statistics_far_from_zero_keep_their_spread():
    """Two values 10^9 + (0, 2): mean 10^9 + 1, standard deviation 1; squares of 10^9 would drown it."""
    found = histogram_statistics(Histogram(10**9, [5, 0, 5]))
    assert (found.mean, found.std) == (1e9 + 1, 1.0)
    assert histogram_statistics(Histogram()) is None
