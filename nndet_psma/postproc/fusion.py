"""One score of two: how sure the detector is of a candidate, and what a second stage says of it.

A logistic regression on the log odds of both, fitted on candidates whose patients neither network has been trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.schema import Within

DETECTOR_SCORE = "detector_score"
"""Name under which the score of a detector stands among what was measured of an object."""

FEWEST = 50
"""Candidates of either kind below which nothing is fused: as for the temperature of a calibration."""

_SMALLEST = 1e-6  # of a score whose log odds are taken


@dataclass(frozen=True)
class Fusion:
    """A fitted regression, and the decision that goes with it.

    Attributes:
        intercept: log odds where both scores are one half.
        detector: weight of the log odds of the detector's score.
        status: weight of the log odds of the second stage's probability.
        threshold: fused score from which on a candidate is accepted: where F1 over the fitted candidates is highest.
    """

    intercept: Annotated[float, Within(-100, 100)]
    detector: Annotated[float, Within(-100, 100)]
    status: Annotated[float, Within(-100, 100)]
    threshold: Annotated[float, Within(0, 1)]

    def score(self, detector: float, status: float) -> float:
        """The fused score, in (0, 1).

        Args:
            detector: score of the candidate, in [0, 1].
            status: calibrated probability of the second stage, in [0, 1].
        """
        odds = self.intercept + self.detector * _log_odds(detector) + self.status * _log_odds(status)
        return float(1 / (1 + np.exp(-np.clip(odds, -50, 50))))


def fit_fusion(
    detector: Sequence[float], status: Sequence[float], truth: NDArray[np.bool_], groups: Sequence[int]
) -> tuple[Fusion | None, str]:
    """The regression, and a sentence on it; None where it does not rank better than the detector alone.

    Whether it does is judged by the average precision over candidates of every group, each by the regression on the
    others.

    Args:
        detector: ``[N]`` scores of candidates, each by a detector that has not seen the patient.
        status: ``[N]`` calibrated probabilities of the second stage, likewise.
        truth: ``[N]`` whether the candidate is a lesion.
        groups: ``[N]`` fold of each.
    """
    if min(int(truth.sum()), int((~truth).sum())) < FEWEST:
        return None, f"not fused with the detector's score: fewer than {FEWEST} candidates of a kind"
    table = np.array([[_log_odds(a), _log_odds(b)] for a, b in zip(detector, status, strict=True)])
    held_out = _held_out(table, truth, np.asarray(groups))
    if held_out is None:
        return None, "not fused with the detector's score: that needs two folds with candidates of both kinds"
    from sklearn.metrics import average_precision_score

    both, alone = (average_precision_score(truth, each) for each in (held_out, np.asarray(detector)))
    told = (
        f"the average precision of {len(truth)} candidates, each fold by the fusion of the others, is {both:.3f} "
        f"against {alone:.3f} of the detector's score alone"
    )
    if both <= alone:
        return None, f"not fused: {told}"
    fitted = _fitted(table, truth)
    fused = np.array([fitted.score(a, b) for a, b in zip(detector, status, strict=True)])
    return replace(fitted, threshold=_best_f1(fused, truth)), f"fused: {told}"


def _log_odds(score: float) -> float:
    clipped = min(max(score, _SMALLEST), 1 - _SMALLEST)
    return float(np.log(clipped / (1 - clipped)))


def _fitted(table: NDArray[np.float64], truth: NDArray[np.bool_]) -> Fusion:
    from sklearn.linear_model import LogisticRegression

    model: Any = LogisticRegression().fit(table, truth)
    (detector, status), (intercept,) = model.coef_[0].tolist(), model.intercept_.tolist()
    return Fusion(intercept, detector, status, 0.5)


def _best_f1(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """The highest of the scores from which on F1 is best."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + truth.sum())
    last = np.append(scores[order][1:] != scores[order][:-1], True)  # equal scores are accepted together
    return float(scores[order][int(np.argmax(np.where(last, f1, -1.0)))])


def _held_out(
    table: NDArray[np.float64], truth: NDArray[np.bool_], groups: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """Fused log odds of every group by the regression on the others; None where these lack a kind."""
    fused = np.zeros(len(truth))
    for held in np.unique(groups).tolist():
        others = groups != held
        if not (truth[others].any() and (~truth[others]).any()):
            return None
        model = _fitted(table[others], truth[others])
        fused[~others] = model.intercept + table[~others] @ [model.detector, model.status]
    return fused
