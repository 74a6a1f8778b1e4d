"""Cohen's kappa between two readers, with its interval, for any number of categories."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Weighting = Literal["none", "linear", "quadratic"]
WEIGHTINGS: tuple[Weighting, ...] = get_args(Weighting)


@dataclass(frozen=True)
class Kappa:
    """Agreement beyond chance.

    Attributes:
        value: 1 is perfect, 0 what chance gives; None when both always say the same one thing.
        ci_low: lower end of the large-sample interval, cut to [-1, 1].
        ci_high: upper end.
        standard_error: of ``value``, without the assumption that there is no agreement.
        agreement: share of items on which both say the same.
        items: how many.
    """

    value: float | None
    ci_low: float | None
    ci_high: float | None
    standard_error: float | None
    agreement: float | None
    items: int


def cohens_kappa_of(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    *,
    weighting: Weighting = "none",
    order: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> Kappa:
    """Kappa of two readers' categories ``[N]``.

    Args:
        first: one reader.
        second: the other, on the same items.
        weighting: "none" counts equal categories only; the others also count near ones, in ``order``.
        order: all categories from low to high; None sorts those that occur.
        level: of the interval.

    Raises:
        ValueError: the lengths differ, or a category is not in ``order``.
    """
    if len(first) != len(second):
        raise ValueError(f"readers of {len(first)} and {len(second)} items")
    categories = list(order) if order is not None else sorted({*first, *second}, key=str)
    place = {category: index for index, category in enumerate(categories)}
    unknown = {*first, *second} - set(place)
    if unknown:
        raise ValueError(f"categories not in the order: {sorted(map(str, unknown))}")
    table = np.zeros((len(categories), len(categories)), dtype=np.int64)
    for one, other in zip(first, second, strict=True):
        table[place[one], place[other]] += 1
    return kappa_of_table(table, weighting=weighting, level=level)


def kappa_of_table(table: ArrayLike, *, weighting: Weighting = "none", level: float = 0.95) -> Kappa:
    """Kappa of a square table of counts (rows: one reader, columns: the other).

    The standard error is that of Fleiss, Cohen and Everitt (Psychol. Bull. 72:323, 1969) for kappa not 0.

    Raises:
        ValueError: the table is not square or holds negative counts.
    """
    counts = np.asarray(table, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or (counts < 0).any():
        raise ValueError("kappa needs a square table of counts")
    items = int(counts.sum())
    if items == 0:
        return Kappa(None, None, None, None, None, 0)
    shares, credit = counts / items, _credit(len(counts), weighting)
    agreement = float(np.trace(shares))
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    observed, chance = float((credit * shares).sum()), float(rows @ credit @ columns)
    if np.isclose(chance, 1.0, rtol=0, atol=1e-12):
        return Kappa(None, None, None, None, agreement, items)
    value = (observed - chance) / (1 - chance)
    mean_credit = (credit @ columns)[:, None] + (rows @ credit)[None]
    spread = (shares * (credit - mean_credit * (1 - value)) ** 2).sum() - (value - chance * (1 - value)) ** 2
    error = float(np.sqrt(max(spread, 0.0) / items)) / (1 - chance)
    reach = _normal_quantile(level) * error
    return Kappa(value, max(-1.0, value - reach), min(1.0, value + reach), error, agreement, items)


def _credit(size: int, weighting: Weighting) -> NDArray[np.float64]:
    """How much each pair of categories agrees, ``[K, K]`` in [0, 1]."""
    if weighting == "none" or size < 2:
        return np.eye(size)
    apart = np.abs(np.subtract.outer(np.arange(size), np.arange(size))) / (size - 1)
    return 1 - (apart if weighting == "linear" else apart**2)


def _normal_quantile(level: float) -> float:
    from scipy.stats import norm

    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    return float(norm.ppf((1 + level) / 2))
