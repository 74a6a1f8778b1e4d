"""Figures of judgements: ROC curves, histogram of probabilities with the decision threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.judgements.row import JudgedRow
from nndet_psma.evaluation.judgements.scores import JudgementScores
from nndet_psma.evaluation.statistics.calibration import calibration
from nndet_psma.evaluation.statistics.decision_curve import decision_curve
from nndet_psma.report.page.content import Picture
from nndet_psma.report.page.figures import (
    BLUE,
    CYCLE,
    GREY,
    LETTERS,
    ORANGE,
    finish,
    legend,
    new_figure,
    png,
    whole_numbers,
)
from nndet_psma.report.texts import number

_BINS = 20


def roc_points(
    probabilities: NDArray[np.float64], positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """False-positive and true-positive rate ``[K]`` from (0, 0) to (1, 1), one point per distinct probability.

    Args:
        probabilities: ``[N]``.
        positive: ``[N]``.

    Returns:
        None where only one of the two kinds is there.
    """
    if positive.all() or not positive.any():
        return None
    order = np.argsort(-probabilities, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(probabilities[order]) != 0, True))
    true = np.cumsum(positive[order])[ends]
    false = ends + 1 - true
    return (
        np.concatenate([[0.0], false / int((~positive).sum())]),
        np.concatenate([[0.0], true / int(positive.sum())]),
    )


def roc_chart(rows: Sequence[JudgedRow], scores: JudgementScores) -> Picture | None:
    """ROC curve of every class that is told, with the point of the tuned decision; None where none is defined."""
    figure, [axes] = new_figure(4.4)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    told = []
    for index, name in enumerate(scores.shown):
        points = roc_points(*_arrays(rows, name))
        if points is None:
            continue
        of_class, colour = scores.by_class[name], CYCLE[index % len(CYCLE)]
        text = f"{name}: AUC {number(of_class.auc.value, 2)}"
        axes.plot(*points, color=colour, linewidth=2, label=text)
        sensitivity, specificity = of_class.sensitivity.value, of_class.specificity.value
        if sensitivity is not None and specificity is not None:
            axes.plot(1 - specificity, sensitivity, "o", color=colour, markersize=9)
            text += f", decided at sensitivity {sensitivity:.2f} and specificity {specificity:.2f}"
        told.append(text)
    if not told:
        return None
    axes.set_aspect("equal")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    finish(axes, "1 - specificity", "sensitivity")
    legend(axes, "lower right")
    return png(
        figure,
        f"ROC curve. {'; '.join(told)}.",
        "ROC curve: what every threshold of the probability would give. The dot is the tuned decision; the dotted "
        "line is guessing.",
    )


def probability_chart(
    rows: Sequence[JudgedRow], positive: str, threshold: float | None, unit: str
) -> Picture | None:
    """Histogram of the probability of one class, apart by truth, with the threshold; None without rows."""
    if not rows:
        return None
    probabilities, of_class = _arrays(rows, positive)
    figure, [axes] = new_figure(3.2)
    edges = np.linspace(0, 1, _BINS + 1)
    parts = (
        (positive, probabilities[of_class], ORANGE),
        (f"not {positive}", probabilities[~of_class], BLUE),
    )
    axes.hist(
        [values for _, values, _ in parts],
        bins=edges.tolist(),
        color=[colour for _, _, colour in parts],
        label=[f"{name} (n={len(values)})" for name, values, _ in parts],
    )
    if threshold is not None:
        axes.axvline(
            threshold, color="#333333", linestyle="--", linewidth=1.4, label=f"threshold {threshold:.2f}"
        )
    axes.set_xlim(0, 1)
    whole_numbers(axes, "y")
    finish(axes, f"probability of '{positive}'", f"{unit}s")
    figure.legend(loc="outside upper left", fontsize=LETTERS - 2, frameon=False, ncols=2)
    medians = "; ".join(f"{name}: median {np.median(values):.2f}" for name, values, _ in parts if len(values))
    return png(
        figure,
        f"Histogram of the probability of {positive}. {medians}.",
        "How far the probability parts the classes. Bars on the wrong side of the dashed line are mistakes of the "
        "tuned decision.",
    )


def reliability_chart(rows: Sequence[JudgedRow], positive: str, unit: str) -> Picture | None:
    """Observed share against mean probability, in ten bins with exact intervals; None without rows."""
    if not rows:
        return None
    found = calibration(*_arrays(rows, positive))
    figure, [axes] = new_figure(4.4)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    for each in found.bins:
        share = each.observed
        if share.value is None or share.ci_low is None or share.ci_high is None:
            continue
        axes.plot(
            [each.mean_probability] * 2, [share.ci_low, share.ci_high], color=BLUE, linewidth=1.6, alpha=0.5
        )
        axes.plot(
            each.mean_probability, share.value, "o", color=BLUE, markersize=4 + 8 * share.total / len(rows)
        )
    axes.set_aspect("equal")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    finish(axes, f"mean probability of '{positive}'", "observed share")
    told = (
        f"slope {number(found.slope, 2)} (1 is right, below: too extreme), intercept {number(found.intercept, 2)} "
        f"(0 is right, below: too high), expected calibration error {number(found.expected_error)}"
    )
    return png(
        figure,
        f"Reliability: {told}.",
        f"Whether probabilities mean what they say: {told}. A dot is a tenth of the scale, the larger the more "
        f"{unit}s; bars are exact 95 % intervals.",
    )


def decision_chart(rows: Sequence[JudgedRow], positive: str) -> Picture | None:
    """Net benefit of acting on the model, on all and on none; None without rows."""
    curve = decision_curve(*_arrays(rows, positive))
    if not curve:
        return None
    thresholds = [each.threshold for each in curve]
    figure, [axes] = new_figure(3.2)
    axes.plot(thresholds, [each.model for each in curve], color=BLUE, linewidth=2, label="the model")
    axes.plot(thresholds, [each.treat_all for each in curve], color=ORANGE, linewidth=1.4, label="act on all")
    axes.axhline(0, color=GREY, linewidth=1.2, label="act on none")
    top = max(max(each.model, each.treat_all) for each in curve)
    axes.set_ylim(-0.25 * max(top, 0.04), 1.1 * max(top, 0.04))
    finish(axes, f"probability of '{positive}' from which one acts", "net benefit")
    legend(axes, "best")
    better = [each.threshold for each in curve if each.model > max(each.treat_all, 0.0)]
    told = (
        f"better than acting on all or none from {min(better):.2f} to {max(better):.2f}, with gaps where the lines meet"
        if better
        else "nowhere better than acting on all or on none"
    )
    return png(
        figure,
        f"Decision curve: {told}.",
        f"Net benefit in true positives per object (Vickers and Elkin 2006): {told}.",
    )


def _arrays(rows: Sequence[JudgedRow], name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Probability of a class and whether it is the true one, ``[N]`` each."""
    probabilities = np.array([row.probabilities.get(name, 0.0) for row in rows], dtype=np.float64)
    return probabilities, np.array([row.truth == name for row in rows], dtype=bool)
