"""Scores of a yes-or-no question from a table: AUC, decision, rates with exact intervals, agreement.

A score column of only 0 and 1 is a decision; any other is cut at the threshold of Youden: the score ``t`` for which
sensitivity + specificity - 1 of "score >= t" is highest, of equal ones the highest ``t``. Chosen and judged on the same
rows, such a cut is optimistic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.statistics.exact_interval import clopper_pearson

Pair = tuple[float, float]

_NOTHING = 1e-12  # standard error of areas that are equal up to rounding


@dataclass(frozen=True)
class Confusion:
    """Counts of a decision."""

    tp: int
    fp: int
    tn: int
    fn: int

    @classmethod
    def of(cls, decision: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Confusion:
        """Count decisions ``[N]`` against truth ``[N]``."""
        tp, positive, called = int((decision & truth).sum()), int(truth.sum()), int(decision.sum())
        return cls(tp, called - tp, len(truth) - positive - called + tp, positive - tp)


def study_scores(
    truth: NDArray[np.bool_],
    scores: NDArray[np.float64],
    other: NDArray[np.float64] | None = None,
    *,
    level: float = 0.95,
) -> dict[str, object]:
    """All scores of one column, null where undefined.

    ``auc_ci95`` has DeLong's variance (:func:`delong_auc`); the intervals of the rates are Clopper and Pearson's.
    ``kappa`` is Cohen's between the decision and the truth. ``mcnemar_p`` is exact and two-sided: with ``other``,
    whether the two columns are wrong equally often on the same rows; without, whether the decision says yes as often as
    the truth does (false positives against false negatives).

    Args:
        truth: ``[N]``.
        scores: ``[N]``, high for yes, or 0 and 1.
        other: ``[N]`` second column, decided in the same way.
        level: of the intervals.
    """
    threshold = decision_threshold(scores, truth)
    auc, interval = delong_auc(scores, truth, level=level)
    result: dict[str, object] = {"auc": auc, "auc_ci95": interval, "threshold": threshold}
    if threshold is None:  # scores without both kinds of truth: no ground for a cut
        return result | dict.fromkeys(_DECIDED)
    decision = scores >= threshold
    return (
        result
        | decided_scores(decision, truth, level=level)
        | {"mcnemar_p": _mcnemar(decision, truth, other)}
    )


def decision_threshold(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float | None:
    """Lowest score that is a yes: 1 for a column of 0 and 1, else Youden's; None when the truth is all alike."""
    if np.isin(scores, (0.0, 1.0)).all():
        return 1.0
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if positives == 0 or negatives == 0:
        return None
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    tp = np.cumsum(truth[order])[ends]
    fp = ends + 1 - tp
    # in integers, so that equal values are equal
    return float(scores[order][ends[int(np.argmax(tp * negatives - fp * positives))]])


def delong_auc(
    scores: NDArray[np.float64], truth: NDArray[np.bool_], *, level: float = 0.95
) -> tuple[float | None, Pair | None]:
    """Area under the ROC curve and its interval from DeLong's variance (Biometrics 44:837, 1988).

    The area is None without both kinds, the interval also with a single row of a kind. Equal scores count one half.

    On the scale of the area itself the interval is too narrow near 1 and with few rows, and leaves [0, 1]. So it is
    made on the logit scale, with Student's quantile (degrees of freedom after Welch and Satterthwaite, as the variance
    is the sum of one over the positives and one over the negatives): ``benchmarks/interval_coverage.py``.

    DeLong's variance is 0 where the kinds are told apart perfectly (or never: all scores equal); the interval would be
    a point. There it is Clopper and Pearson's over ``k = min(positives, negatives)`` pairs: at area 1 from
    ``0.025^(1/k)`` to 1. So many pairs share no row, each is in order with the probability AUC (or less, with ties), so
    all are with at most ``AUC^k``, whatever the distributions. No bound for all distributions is closer: a share
    1 - AUC of the rarer kind may lie beyond all of the other. At area 0 likewise; at equal scores ``k / 2`` of ``k``.
    """
    from scipy.special import expit, logit
    from scipy.stats import t

    if truth.all() or not truth.any():
        return None, None
    above, below = _placements(scores, truth)
    area = float(above.mean())
    if min(len(above), len(below)) < 2:
        return area, None
    parts = np.array([each.var(ddof=1) / len(each) for each in (above, below)])
    spread = float(np.sqrt(parts.sum()))
    if spread <= _NOTHING:
        pairs = min(len(above), len(below))
        return area, clopper_pearson(area * pairs, pairs, level=level)
    freedom = parts.sum() ** 2 / (parts**2 / (len(above) - 1, len(below) - 1)).sum()
    reach = float(t.ppf((1 + level) / 2, freedom)) * spread / (area * (1 - area))
    return area, (float(expit(logit(area) - reach)), float(expit(logit(area) + reach)))


@dataclass(frozen=True)
class AucDifference:
    """Difference of two areas on the same rows, first minus second.

    Attributes:
        value: None without both kinds of truth.
        interval: DeLong's, cut to [-1, 1]; None also with a single row of a kind.
        p: two-sided, of no difference; 1 where the areas do not vary against each other.
    """

    value: float | None
    interval: Pair | None
    p: float | None


def delong_difference(
    first: NDArray[np.float64], second: NDArray[np.float64], truth: NDArray[np.bool_], *, level: float = 0.95
) -> AucDifference:
    """Paired comparison of two columns ``[N]`` after DeLong, which takes rows for independent."""
    from scipy.stats import norm

    if truth.all() or not truth.any():
        return AucDifference(None, None, None)
    (above, below), (other_above, other_below) = _placements(first, truth), _placements(second, truth)
    gain, gain_below = above - other_above, below - other_below
    value = float(gain.mean())
    if min(len(gain), len(gain_below)) < 2:
        return AucDifference(value, None, None)
    spread = float(np.sqrt(gain.var(ddof=1) / len(gain) + gain_below.var(ddof=1) / len(gain_below)))
    if spread <= _NOTHING:
        return AucDifference(value, (value, value), 1.0 if abs(value) <= _NOTHING else 0.0)
    reach = float(norm.ppf((1 + level) / 2) * spread)
    interval = (max(-1.0, value - reach), min(1.0, value + reach))
    return AucDifference(value, interval, float(2 * norm.sf(abs(value) / spread)))


def _placements(
    scores: NDArray[np.float64], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of the negatives below each positive, and of the positives above each negative; equal ones half."""
    from scipy.stats import rankdata

    positives, negatives = scores[truth], scores[~truth]
    ranks = rankdata(np.concatenate([positives, negatives]))
    above = (ranks[: len(positives)] - rankdata(positives)) / len(negatives)
    below = 1 - (ranks[len(positives) :] - rankdata(negatives)) / len(positives)
    return above, below


def sensitive_threshold(
    scores: NDArray[np.float64], truth: NDArray[np.bool_], sensitivity: float
) -> float | None:
    """Highest score from which on at least that share of the positives is called a yes; None without positives."""
    found = np.sort(scores[truth])[::-1]
    if len(found) == 0:
        return None
    return float(found[max(0, math.ceil(sensitivity * len(found) - _NOTHING) - 1)])


def decided_scores(
    decision: NDArray[np.bool_], truth: NDArray[np.bool_], *, level: float = 0.95
) -> dict[str, object]:
    """Counts, rates and kappa of a decision ``[N]``."""
    return _rates(Confusion.of(decision, truth), level)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value that two paired decisions differ, from the rows on which only one is right.

    1 when there is no such row.
    """
    from scipy.stats import binomtest

    discordant = only_first + only_second
    return 1.0 if discordant == 0 else float(binomtest(only_first, discordant).pvalue)


def cohens_kappa(counts: Confusion) -> float | None:
    """Agreement beyond chance of two yes-or-no columns; None when both always say the same one thing."""
    total = counts.tp + counts.fp + counts.tn + counts.fn
    called, positive = counts.tp + counts.fp, counts.tp + counts.fn
    by_chance = called * positive + (total - called) * (total - positive)
    if by_chance == total**2:
        return None
    return (total * (counts.tp + counts.tn) - by_chance) / (total**2 - by_chance)


_DECIDED = (
    *("tp", "fp", "tn", "fn", "accuracy", "sensitivity", "sensitivity_ci95", "specificity"),
    *("specificity_ci95", "ppv", "npv", "f1", "kappa", "mcnemar_p"),
)


def _rates(counts: Confusion, level: float) -> dict[str, object]:
    tp, fp, tn, fn = counts.tp, counts.fp, counts.tn, counts.fn
    return {
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
        "accuracy": _share(tp + tn, tp + fp + tn + fn),
        "sensitivity": _share(tp, tp + fn),
        "sensitivity_ci95": clopper_pearson(tp, tp + fn, level=level),
        "specificity": _share(tn, tn + fp),
        "specificity_ci95": clopper_pearson(tn, tn + fp, level=level),
        "ppv": _share(tp, tp + fp),
        "npv": _share(tn, tn + fn),
        "f1": _share(2 * tp, 2 * tp + fp + fn),
        "kappa": cohens_kappa(counts),
    }


def _mcnemar(
    decision: NDArray[np.bool_], truth: NDArray[np.bool_], other: NDArray[np.float64] | None
) -> float | None:
    if other is None:
        counts = Confusion.of(decision, truth)
        return mcnemar(counts.fp, counts.fn)
    cut = decision_threshold(other, truth)
    if cut is None:
        return None
    first, second = decision == truth, (other >= cut) == truth
    return mcnemar(int((first & ~second).sum()), int((~first & second).sum()))


def _share(part: int, total: int) -> float | None:
    return part / total if total else None
