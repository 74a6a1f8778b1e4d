"""Whether probabilities mean what they say: calibration slope and intercept, expected calibration error, reliability.

Slope and intercept belong to logistic recalibration (Cox, Biometrika 45:562, 1958): ``logit P(yes) = a + b logit(p)``.
The slope is ``b`` (below 1: too extreme), the intercept is ``a`` where ``b`` is held at 1 (below 0: too high on the
whole), as Van Calster et al. (J Clin Epidemiol 74:167, 2016) report them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.statistics.proportion import Proportion

_LEAST = 1e-6  # probabilities are kept so far from 0 and 1, where the logit has no value
_STEEP = 1e3  # a slope beyond has no maximum of the likelihood behind it: the kinds are told apart perfectly


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose probability lies in ``[low, high)`` (the last bin holds 1, too).

    Attributes:
        low: lower end.
        high: upper end.
        mean_probability: of its rows.
        observed: rows that are a yes, of all in the bin, with the exact interval.
    """

    low: float
    high: float
    mean_probability: float
    observed: Proportion


@dataclass(frozen=True)
class Calibration:
    """Calibration of probabilities of a yes.

    Attributes:
        slope: None where the kinds are told apart perfectly, all probabilities are equal, or one kind is missing.
        intercept: likewise, but defined where all probabilities are equal.
        expected_error: mean over the rows of how far mean probability and observed share of their bin lie apart.
        brier: mean squared difference of probability and truth.
        bins: that hold rows, of equal width.
    """

    slope: float | None
    intercept: float | None
    expected_error: float | None
    brier: float | None
    bins: list[ReliabilityBin]


def calibration(
    probabilities: NDArray[np.float64], truth: NDArray[np.bool_], *, bins: int = 10
) -> Calibration:
    """Calibration of probabilities ``[N]`` of a yes against the truth ``[N]``.

    Raises:
        ValueError: a probability lies outside [0, 1].
    """
    if ((probabilities < 0) | (probabilities > 1)).any():
        raise ValueError("probabilities must lie in [0, 1]")
    table = _reliability(probabilities, truth, bins)
    if len(truth) == 0:
        return Calibration(None, None, None, None, table)
    gaps = [row.observed.total * abs(row.mean_probability - (row.observed.value or 0.0)) for row in table]
    brier = float(((probabilities - truth) ** 2).mean())
    kept = np.clip(probabilities, _LEAST, 1 - _LEAST)
    logits = np.log(kept / (1 - kept))
    both = truth.any() and not truth.all()
    slope = _slope(logits, truth) if both else None
    intercept = _intercept(logits, truth) if both else None
    return Calibration(slope, intercept, sum(gaps) / len(truth), brier, table)


def _reliability(
    probabilities: NDArray[np.float64], truth: NDArray[np.bool_], bins: int
) -> list[ReliabilityBin]:
    place = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    table = []
    for index in np.unique(place):
        rows = place == index
        observed = Proportion.of(int(truth[rows].sum()), int(rows.sum()))
        table.append(
            ReliabilityBin(index / bins, (index + 1) / bins, float(probabilities[rows].mean()), observed)
        )
    return table


def _slope(logits: NDArray[np.float64], truth: NDArray[np.bool_]) -> float | None:
    from sklearn.linear_model import LogisticRegression

    if np.ptp(logits) == 0 or _apart(logits, truth):
        return None
    fitted = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(logits[:, None], truth)
    slope = float(fitted.coef_[0, 0])
    return slope if abs(slope) < _STEEP else None


def _apart(logits: NDArray[np.float64], truth: NDArray[np.bool_]) -> bool:
    """Whether some value parts the two kinds, or only touches both: then the likelihood grows with the slope."""
    yes, no = logits[truth], logits[~truth]
    return bool(yes.min() >= no.max() or no.min() >= yes.max())


def _intercept(logits: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Shift of the logits at which the mean probability is the observed share."""
    from scipy.optimize import brentq
    from scipy.special import expit

    reach = float(np.abs(logits).max()) + 40.0
    return float(brentq(lambda shift: expit(logits + shift).mean() - truth.mean(), -reach, reach))
