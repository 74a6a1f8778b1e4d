"""Studentised bootstrap intervals for few patients.

With few patients percentiles of the draws lie too close together: their spread is that of ``n`` patients divided by
``n`` instead of ``n - 1``, they know no quantile of Student, and scores near 1 are skewed. Here the standard error of
the draws, widened by ``sqrt(n / (n - 1))``, is multiplied with Student's quantile (Efron and Tibshirani 1993, An
Introduction to the Bootstrap, chapter 12; Hesterberg, Am. Stat. 69:371, 2015) on a scale on which the statistic is
roughly symmetrical (Davison and Hinkley 1997, Bootstrap Methods and their Application, section 5.2), so that no end
leaves the possible values:

==========  ================  =================================================================
share       logit             from 0 to 1: sensitivity, precision, F1, AP, FROC score, AUC
rate        square root       0 or more: false positives per case or patient
length      square root       0 or more, not counted: distances of masks in mm
difference  as it is          of two shares, cut to [-1, 1]
contrast    as it is          of two rates, without bounds
==========  ================  =================================================================

Where that is undefined, because the value is a bound of its scale or the draws do not vary, the interval is exact with
patients as trials: Clopper and Pearson's of a share (every lesion of 18 patients found: 0.025^(1/18) = 0.81 to 1),
Garwood's (Biometrika 28:437, 1936) of a rate; joined with the percentiles where the draws do vary. A difference and a
length without spread stay the points that they are.

Efron's BCa (J. Am. Stat. Assoc. 82:171, 1987) was the alternative. It covers less at 10 and 18 patients and is
undefined where all draws lie on one side of the value: ``benchmarks/interval_coverage.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.statistics.exact_interval import clopper_pearson, garwood

Scale = Literal["share", "rate", "length", "difference", "contrast"]
Pair = tuple[float, float]

_FROM_ZERO = ("rate", "length")
_SIGNED = ("difference", "contrast")
_NOTHING = 1e-12  # spread of draws that are equal up to rounding


@dataclass(frozen=True)
class Spread:
    """Standard error of a statistic over patients.

    Attributes:
        error: in the unit of the statistic.
        freedom: degrees of freedom, patients - 1.
    """

    error: float
    freedom: int

    @classmethod
    def of(cls, drawn: NDArray[np.float64], patients: int) -> Spread | None:
        """From the values of draws ``[D]``, NaN where undefined; None when they do not vary or patients are too few.

        Args:
            drawn: statistic of each draw.
            patients: that the statistic is about.
        """
        defined = drawn[~np.isnan(drawn)]
        if patients < 2 or len(defined) < 2 or np.ptp(defined) <= _NOTHING:
            return None
        return cls(float(defined.std(ddof=1)) * math.sqrt(patients / (patients - 1)), patients - 1)

    def reach(self, level: float) -> float:
        """Half the width of the interval at ``level`` on the scale of the statistic."""
        from scipy.stats import t

        return float(t.ppf((1 + level) / 2, self.freedom)) * self.error

    def p(self, difference: float) -> float:
        """Two-sided p-value that the statistic is 0; below 1 - level exactly when the interval leaves 0 out."""
        from scipy.stats import t

        return float(2 * t.sf(abs(difference) / self.error, self.freedom))


def student_ends(
    value: float, drawn: NDArray[np.float64], patients: int, *, scale: Scale = "share", level: float = 0.95
) -> Pair | None:
    """Ends of the interval; None with fewer than two patients or without a defined draw.

    Args:
        value: of the statistic on the data.
        drawn: ``[D]`` of the draws, NaN where undefined.
        patients: that the statistic is about: those of whom each alone would define it.
        scale: see the table of the module.
        level: of the interval.
    """
    defined = drawn[~np.isnan(drawn)]
    if patients < 2 or len(defined) == 0:
        return None
    spread = Spread.of(defined, patients)
    if spread is not None and _inside(value, scale):
        return _on_scale(value, spread.reach(level), scale)
    exact = _exact(value, patients, scale, level)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return min(exact[0], low), max(exact[1], high)


def _inside(value: float, scale: Scale) -> bool:
    if scale in _SIGNED:
        return True
    return value > _NOTHING and (scale in _FROM_ZERO or value < 1 - _NOTHING)


def _on_scale(value: float, reach: float, scale: Scale) -> Pair:
    from scipy.special import expit, logit

    if scale == "share":
        middle, half = logit(value), reach / (value * (1 - value))
        return float(expit(middle - half)), float(expit(middle + half))
    if scale in _FROM_ZERO:
        root, half = math.sqrt(value), reach / (2 * math.sqrt(value))
        return max(0.0, root - half) ** 2, (root + half) ** 2
    if scale == "contrast":
        return value - reach, value + reach
    return max(-1.0, value - reach), min(1.0, value + reach)


def _exact(value: float, patients: int, scale: Scale, level: float) -> Pair:
    if scale in (*_SIGNED, "length"):
        return value, value
    if scale == "rate":
        low, high = garwood(value * patients, level=level)
        return low / patients, high / patients
    hits = min(max(value, 0.0), 1.0) * patients
    return clopper_pearson(hits, patients, level=level) or (0.0, 1.0)
