"""Shares of a count with an exact interval, and with one over patients where patients have several objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.statistics.exact_interval import clopper_pearson
from nndet_psma.evaluation.statistics.resampling import Resampling


@dataclass(frozen=True)
class Share:
    """``hits`` of ``total``; all but the counts are None where ``total`` is 0.

    Attributes:
        hits: how many.
        total: of how many.
        value: hits / total.
        exact_low: lower end of the interval of Clopper and Pearson, which takes objects for independent.
        exact_high: upper end.
        ci_low: lower end of the interval to be told: over draws of patients where patients have several objects, else
            the exact one; None with a single patient of several objects.
        ci_high: upper end.
    """

    hits: int
    total: int
    value: float | None = None
    exact_low: float | None = None
    exact_high: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None


def share_of(
    hit: NDArray[np.bool_], asked: NDArray[np.bool_], resampling: Resampling, *, clustered: bool
) -> Share:
    """The share of ``hit`` among ``asked``.

    Args:
        hit: ``[N]``.
        asked: ``[N]`` whether an object counts.
        resampling: draws of the patients of the objects.
        clustered: whether a patient has several objects.
    """
    hits, total = int((hit & asked).sum()), int(asked.sum())
    exact = clopper_pearson(hits, total, level=resampling.level)
    if exact is None:
        return Share(hits, total)
    value = hits / total
    if not clustered:
        return Share(hits, total, value, *exact, *exact)
    draws = resampling.weights
    interval = resampling.interval(value, ratio(draws @ (hit & asked), draws @ asked))
    return Share(hits, total, value, *exact, interval.low, interval.high)


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """``part / whole`` ``[D]``, NaN where ``whole`` is 0."""
    found = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=found, where=np.asarray(whole) != 0)
    return found
