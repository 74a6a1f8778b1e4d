"""Area under the ROC curve as the rank statistic of Mann and Whitney."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nndet_psma.evaluation.detection.ranking import Weights

_ROWS_AT_ONCE = 1000  # of weights, so that 10 000 draws of a large table need no gigabytes


def dense_ranks(scores: ArrayLike) -> NDArray[np.int64]:
    """Rank of each score from 0, equal scores share a rank."""
    return np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True)[1].reshape(-1)


def rank_auc(
    ranks: NDArray[np.int64], positive: NDArray[np.bool_], weights: Weights | None = None
) -> float | None:
    """Probability that a positive ranks above a negative, equal ranks counting one half.

    Args:
        ranks: ``[N]`` from :func:`dense_ranks`.
        positive: ``[N]``.
        weights: ``[N]`` how often each counts.

    Returns:
        Value in [0, 1]; None when only one of the two kinds is there.
    """
    times = np.ones(len(ranks)) if weights is None else weights.astype(np.float64)
    positives = np.bincount(ranks, times * positive)
    negatives = np.bincount(ranks, times * ~positive)
    pairs = positives.sum() * negatives.sum()
    if pairs == 0:
        return None
    below = np.cumsum(negatives) - negatives
    return float(positives @ (below + negatives / 2) / pairs)


def auc(scores: ArrayLike, positive: ArrayLike) -> float | None:
    """:func:`rank_auc` of scores ``[N]`` and truth ``[N]``."""
    return rank_auc(dense_ranks(scores), np.asarray(positive, dtype=bool))


def rank_aucs(ranks: NDArray[np.int64], positive: NDArray[np.bool_], weights: Weights) -> NDArray[np.float64]:
    """:func:`rank_auc` for every row of ``weights`` ``[D, N]``: ``[D]``, NaN where only one of the kinds is there."""
    if len(ranks) == 0:
        return np.full(len(weights), np.nan)
    order = np.argsort(ranks, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(ranks[order]) != 0))
    values = np.empty(len(weights))
    for first in range(0, len(weights), _ROWS_AT_ONCE):
        part = weights[first : first + _ROWS_AT_ONCE, order].astype(np.float64)
        positives = np.add.reduceat(part * positive[order], starts, axis=1)
        negatives = np.add.reduceat(part * ~positive[order], starts, axis=1)
        below = np.cumsum(negatives, axis=1) - negatives
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        above = (positives * (below + negatives / 2)).sum(axis=1)
        values[first : first + len(part)] = np.divide(
            above, pairs, out=np.full(len(part), np.nan), where=pairs > 0
        )
    return values


def stratified_auc(
    ranks: NDArray[np.int64],
    positive: NDArray[np.bool_],
    strata: NDArray[np.int64],
    weights: Weights | None = None,
) -> NDArray[np.float64]:
    """Probability that a positive ranks above a negative **of its stratum**: pairs across strata do not count.

    A score that only tells the strata apart has 0.5.

    Args:
        ranks: ``[N]`` from :func:`dense_ranks`.
        positive: ``[N]``.
        strata: ``[N]`` number of each row's stratum.
        weights: ``[D, N]`` how often each row counts; None counts each once.

    Returns:
        ``[D]`` (one value without weights), NaN where no stratum holds both kinds.
    """
    times = np.ones((1, len(ranks)), dtype=np.int64) if weights is None else weights
    won, pairs = np.zeros(len(times)), np.zeros(len(times))
    for stratum in np.unique(strata):
        rows = strata == stratum
        inside, part = positive[rows], times[:, rows]
        number = (part @ inside) * (part @ ~inside)
        areas = rank_aucs(ranks[rows], inside, part)
        won += np.where(number > 0, areas, 0.0) * number
        pairs += number
    found: NDArray[np.float64] = np.divide(won, pairs, out=np.full(len(times), np.nan), where=pairs > 0)
    return found
