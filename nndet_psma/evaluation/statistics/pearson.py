"""Pearson's correlation of paired measurements with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Correlation:
    """Pearson's r.

    Attributes:
        r: in [-1, 1]; None with fewer than two pairs or when one side does not vary.
        ci_low: lower end of Fisher's interval (arctanh); None with fewer than four pairs.
        ci_high: upper end.
        p: two-sided, of no correlation; None with fewer than three pairs.
        pairs: how many.
    """

    r: float | None
    ci_low: float | None
    ci_high: float | None
    p: float | None
    pairs: int


def pearson(first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> Correlation:
    """Correlation of two columns ``[N]``.

    Raises:
        ValueError: the lengths differ, a value is not finite, or ``level`` lies outside (0, 1).
    """
    from scipy.stats import norm, t

    one, other = paired(first, second)
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    pairs = len(one)
    if pairs < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return Correlation(None, None, None, None, pairs)
    r = float(np.clip(np.corrcoef(one, other)[0, 1], -1, 1))
    p = None
    if pairs > 2:
        p = 0.0 if abs(r) == 1 else float(2 * t.sf(abs(r) * np.sqrt((pairs - 2) / (1 - r * r)), pairs - 2))
    if pairs < 4:
        return Correlation(r, None, None, p, pairs)
    if abs(r) == 1:
        return Correlation(r, r, r, p, pairs)
    reach = norm.ppf((1 + level) / 2) / np.sqrt(pairs - 3)
    low, high = np.tanh(np.arctanh(r) + np.array([-reach, reach]))
    return Correlation(r, float(low), float(high), p, pairs)


def paired(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two columns as float arrays ``[N]``.

    Raises:
        ValueError: the lengths differ, or a value is not finite.
    """
    one, other = np.asarray(first, dtype=np.float64).ravel(), np.asarray(second, dtype=np.float64).ravel()
    if len(one) != len(other):
        raise ValueError(f"pairs of {len(one)} and {len(other)} values")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError("a measurement is not finite")
    return one, other
