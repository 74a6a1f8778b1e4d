"""Intensities inside lesions, CTV, body and outside, of one image in one pass with bounded memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.fingerprint import Histogram, IntensityStatistics

BODY, CTV, LESION = 1, 2, 4  # bits of a region code
_CODES = 8
_MOST_BINS = 1 << 16
_SAMPLE = 200_000  # voxels of a region of a float image: quantiles to 0.1 %
_REGIONS = {
    "lesion": [code for code in range(_CODES) if code & LESION],
    "ctv": [code for code in range(_CODES) if code & CTV and not code & LESION],
    "body": [code for code in range(_CODES) if code & BODY],
    "outside": [code for code in range(_CODES) if not code & BODY],
}


class CountedValues:
    """Every value of an integer image, counted for each region code: exact statistics without sorting.

    Attributes:
        lowest: value of the first bin.
        counts: ``[8, bins]`` voxels by region code and value.
    """

    def __init__(self, array: NDArray[Any], codes: NDArray[np.uint8]) -> None:
        """Count slice by slice.

        Args:
            array: (z, y, x) of whole numbers that :func:`countable` accepts.
            codes: (z, y, x) sum of ``BODY``, ``CTV`` and ``LESION``.
        """
        self.lowest = int(array.min())
        bins = int(array.max()) - self.lowest + 1
        counts = np.zeros(_CODES * bins, dtype=np.int64)
        offsets = np.arange(_CODES) * bins - self.lowest
        for plane, code in zip(array, codes, strict=True):
            counts += np.bincount((offsets[code] + plane).ravel(), minlength=len(counts))
        self.counts = counts.reshape(_CODES, bins)

    def histogram(self, region: str) -> Histogram:
        """Histogram of "lesion", "ctv", "body" or "outside"."""
        return Histogram.from_counts(self.lowest, self.counts[_REGIONS[region]].sum(axis=0))

    def search_histogram(self, code: int) -> Histogram:
        """Histogram of the voxels with the bit ``code`` (CTV or BODY) that are no lesion."""
        wanted = [c for c in range(_CODES) if c & code and not c & LESION]
        return Histogram.from_counts(self.lowest, self.counts[wanted].sum(axis=0))

    def statistics(self) -> dict[str, IntensityStatistics]:
        """By region; regions without voxels are left out."""
        found = {name: histogram_statistics(self.histogram(name)) for name in _REGIONS}
        return {name: statistics for name, statistics in found.items() if statistics is not None}


def countable(array: NDArray[Any]) -> bool:
    """Whether an image holds integers of so narrow a range that they can be counted."""
    if array.dtype.kind not in "iu":
        return False
    return int(array.max()) - int(array.min()) < _MOST_BINS


def to_hu(array: NDArray[Any]) -> NDArray[Any]:
    """CT rounded to whole HU as int16 (clipped to its range); int16 is returned as it is."""
    if array.dtype == np.int16:
        return array
    rounded = np.empty(array.shape, dtype=np.int16)
    for target, plane in zip(rounded, array, strict=True):
        target[...] = np.clip(np.rint(plane), -32768, 32767)
    return rounded


def histogram_statistics(histogram: Histogram) -> IntensityStatistics | None:
    """Statistics from counts; None without any."""
    if not histogram.counts:
        return None
    counts = np.array(histogram.counts, dtype=np.float64)
    offsets = np.arange(len(counts), dtype=np.float64)  # from the lowest: no cancellation far from zero
    mean = float(counts @ offsets / counts.sum())
    variance = float(counts @ (offsets - mean) ** 2 / counts.sum())
    low, mid, high = (histogram.quantile(q) for q in (0.005, 0.5, 0.995))
    lowest, highest = float(histogram.lowest), float(histogram.lowest + len(counts) - 1)
    return IntensityStatistics(
        histogram.total, lowest + mean, math.sqrt(variance), lowest, low, mid, high, highest
    )


def sampled_statistics(array: NDArray[Any], codes: NDArray[np.uint8]) -> dict[str, IntensityStatistics]:
    """By region, of an image of any numbers, from at most about 200 000 voxels of each region.

    Every ``step``-th voxel of the image is looked at; the step has no factor in common with rows and slices, so that
    no column is preferred, and it is the same on every run.
    """
    voxels = np.bincount(codes.ravel(), minlength=_CODES) if codes.size < 1 << 20 else _count_codes(codes)
    flat_codes, values = codes.reshape(-1), array.reshape(-1)
    found = {}
    for name, members in _REGIONS.items():
        total = int(voxels[members].sum())
        if total == 0:
            continue
        step = _coprime(max(1, total // _SAMPLE), array.shape)
        inside = np.isin(np.arange(_CODES), members)[flat_codes[::step]]
        sample = values[::step][inside]
        if sample.size == 0:
            step, sample = 1, values[np.isin(np.arange(_CODES), members)[flat_codes]]
        found[name] = _statistics_of(sample, total, step)
    return found


def _count_codes(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    return sum((np.bincount(plane.ravel(), minlength=_CODES) for plane in codes), np.zeros(_CODES, np.int64))


def _coprime(step: int, shape: tuple[int, ...]) -> int:
    while step > 1 and math.gcd(step, math.prod(shape[1:])) > 1:
        step += 1
    return step


def _statistics_of(sample: NDArray[Any], voxels: int, step: int) -> IntensityStatistics:
    values = sample.astype(np.float64)
    low, mid, high = np.percentile(values, [0.5, 50, 99.5], method="inverted_cdf")
    return IntensityStatistics(
        voxels,
        float(values.mean()),
        float(values.std()),
        float(values.min()),
        float(low),
        float(mid),
        float(high),
        float(values.max()),
        step,
    )
