"""Bland and Altman's limits of agreement of two methods that measure the same things (Lancet 1:307, 1986)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nndet_psma.evaluation.statistics.pearson import paired

Pair = tuple[float, float]
_REACH = 1.96  # standard deviations; the limits of the paper of 1986


@dataclass(frozen=True)
class LimitsOfAgreement:
    """Differences first minus second. None where there are too few pairs.

    Attributes:
        bias: mean difference.
        bias_ci: its interval, Student's t.
        sd: standard deviation of the differences (n - 1).
        lower: bias - 1.96 sd.
        upper: bias + 1.96 sd.
        lower_ci: interval of the lower limit; standard error sd * sqrt(1 / n + 1.96^2 / (2 (n - 1))).
        upper_ci: of the upper limit.
        p: two-sided paired t-test of no bias.
        slope: of the differences against the means (least squares): not 0 where the methods differ more for large
            values; None when the means do not vary.
        inside: share of the pairs within the limits.
        pairs: how many.
    """

    bias: float | None
    bias_ci: Pair | None
    sd: float | None
    lower: float | None
    upper: float | None
    lower_ci: Pair | None
    upper_ci: Pair | None
    p: float | None
    slope: float | None
    inside: float | None
    pairs: int


def bland_altman(first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> LimitsOfAgreement:
    """Limits of agreement of two columns ``[N]`` in the same unit.

    Raises:
        ValueError: the lengths differ, a value is not finite, or ``level`` lies outside (0, 1).
    """
    one, other = paired(first, second)
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    difference, middle = one - other, (one + other) / 2
    pairs = len(difference)
    if pairs < 2:
        bias = float(difference[0]) if pairs else None
        return LimitsOfAgreement(bias, None, None, None, None, None, None, None, None, None, pairs)
    return _limits(difference, middle, level)


def _limits(difference: np.ndarray, middle: np.ndarray, level: float) -> LimitsOfAgreement:
    from scipy.stats import t

    pairs = len(difference)
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    lower, upper = bias - _REACH * sd, bias + _REACH * sd
    quantile = float(t.ppf((1 + level) / 2, pairs - 1))
    reach = quantile * sd / np.sqrt(pairs)
    of_limit = quantile * sd * np.sqrt(1 / pairs + _REACH**2 / (2 * (pairs - 1)))
    with np.errstate(divide="ignore", invalid="ignore"):  # without spread any bias is certain
        ratio = np.nan_to_num(np.float64(abs(bias)) / (sd / np.sqrt(pairs)), nan=0.0, posinf=np.inf)
    vary = ((middle - middle.mean()) ** 2).sum()
    slope = float(((middle - middle.mean()) * difference).sum() / vary) if vary > 0 else None
    return LimitsOfAgreement(
        bias=bias,
        bias_ci=(bias - reach, bias + reach),
        sd=sd,
        lower=lower,
        upper=upper,
        lower_ci=(lower - of_limit, lower + of_limit),
        upper_ci=(upper - of_limit, upper + of_limit),
        p=float(2 * t.sf(ratio, pairs - 1)),
        slope=slope,
        inside=float(((difference >= lower) & (difference <= upper)).mean()),
        pairs=pairs,
    )
