"""Histogram of integer values, pooled over cases: what quantiles and windows are read from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Histogram:
    """Counts of integer values: ``counts[i]`` voxels have the value ``lowest + i`` (HU for CT)."""

    lowest: int = 0
    counts: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, values: NDArray[Any]) -> Histogram:
        """Histogram of ``values`` rounded to integers."""
        if values.size == 0:
            return cls()
        rounded = np.rint(values).astype(np.int64)
        lowest = int(rounded.min())
        return cls(lowest, np.bincount((rounded - lowest).ravel()).tolist())

    @classmethod
    def from_counts(cls, lowest: int, counts: NDArray[np.integer[Any]]) -> Histogram:
        """Histogram of ready counts; zeros at both ends are cut off."""
        filled = np.flatnonzero(counts)
        if len(filled) == 0:
            return cls()
        first, last = int(filled[0]), int(filled[-1])
        return cls(lowest + first, counts[first : last + 1].tolist())

    @classmethod
    def pooled(cls, parts: list[Histogram]) -> Histogram:
        """Sum of histograms."""
        filled = [part for part in parts if part.counts]
        if not filled:
            return cls()
        lowest = min(part.lowest for part in filled)
        highest = max(part.lowest + len(part.counts) for part in filled)
        total = np.zeros(highest - lowest, dtype=np.int64)
        for part in filled:
            start = part.lowest - lowest
            total[start : start + len(part.counts)] += np.array(part.counts, dtype=np.int64)
        return cls(lowest, total.tolist())

    @property
    def total(self) -> int:
        """Number of values."""
        return sum(self.counts)

    def quantile(self, q: float) -> float:
        """Smallest value with at least the share ``q`` of all values at or below it.

        Raises:
            ValueError: the histogram is empty.
        """
        if not self.counts:
            raise ValueError("quantile of an empty histogram")
        cumulative = np.cumsum(self.counts)
        position = int(np.searchsorted(cumulative, q * cumulative[-1]))
        return float(self.lowest + min(position, len(self.counts) - 1))

    def share_above(self, threshold: float) -> float:
        """Share of the values above ``threshold``.

        Raises:
            ValueError: the histogram is empty.
        """
        if not self.counts:
            raise ValueError("share of an empty histogram")
        first = max(0, int(np.floor(threshold)) + 1 - self.lowest)
        return sum(self.counts[first:]) / self.total
