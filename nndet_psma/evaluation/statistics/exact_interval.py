"""Exact intervals of counts: a share (Clopper and Pearson) and a rate (Garwood)."""

from __future__ import annotations

Pair = tuple[float, float]


def clopper_pearson(hits: float, total: int, *, level: float = 0.95) -> Pair | None:
    """Exact binomial interval of ``hits / total`` (Biometrika 26:404, 1934); None when ``total`` is 0.

    Broken ``hits`` are taken as they are, between the intervals of the whole numbers round them.
    """
    from scipy.stats import beta

    if total == 0:
        return None
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, total - hits + 1))
    high = 1.0 if hits == total else float(beta.ppf(1 - tail, hits + 1, total - hits))
    return low, high


def garwood(count: float, *, level: float = 0.95) -> Pair:
    """Exact Poisson interval of the mean of a count (Biometrika 28:437, 1936); of 0 from 0 to 3.69 at 95 %."""
    from scipy.stats import chi2

    tail = (1 - level) / 2
    low = 0.0 if count == 0 else float(chi2.ppf(tail, 2 * count)) / 2
    return low, float(chi2.ppf(1 - tail, 2 * count + 2)) / 2
