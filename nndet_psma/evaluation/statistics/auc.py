"""Area under the ROC curve as the rank statistic of Mann and Whitney."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nndet_psma.evaluation.detection.ranking import Weights


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
