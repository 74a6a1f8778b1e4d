"""Figures of the scores: FROC curve, ablation, landscape of the sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.detection.compare import Difference
from nndet_psma.evaluation.detection.froc import FP_RATES, froc_curve
from nndet_psma.evaluation.detection.ranking import RankedDetections, Weights, rank_detections
from nndet_psma.evaluation.detection.record import CaseRecord
from nndet_psma.evaluation.detection.scores import OPERATING_IOU, Score
from nndet_psma.evaluation.detection.strata import Stratum
from nndet_psma.evaluation.statistics.resampling import Resampling
from nndet_psma.inference.ablation import AblationRow
from nndet_psma.report.charts.landscape import Landscape
from nndet_psma.report.page.content import Picture
from nndet_psma.report.page.figures import BLUE, GREEN, GREY, LETTERS, ORANGE, finish, new_figure, png
from nndet_psma.report.texts import percent, score_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAND_DRAWS = 300
_COLOUR_SPAN = 0.4  # below the best value; hopeless settings must not eat the colours of the good ones
_RATE_LABELS = ("1/8", "1/4", "1/2", "1", "2", "4", "8")


def froc_chart(
    records: Sequence[CaseRecord], curves: Mapping[str, Sequence[float]], seed: int
) -> Picture | None:
    """FROC curve at IoU 0.1 with its bootstrap band, and the stricter overlaps beside it; None without lesions."""
    ranked = rank_detections(records, iou=OPERATING_IOU, max_detections=None)
    whole = froc_curve(ranked) if records else None
    if whole is None:
        return None
    rates = np.geomspace(1 / 8, 8, 200)
    figure, [axes] = new_figure(3.9)
    band = _band(records, rates, seed)
    if band is not None:
        axes.fill_between(rates, *band, color=BLUE, alpha=0.18, linewidth=0, label="95 % interval")
    axes.plot(rates, whole.sensitivity_at(tuple(rates)), color=BLUE, linewidth=2.2, label="IoU 0.10")
    for iou, colour, dashes in (("0.30", ORANGE, "--"), ("0.50", GREY, ":")):
        curve = curves.get(f"FROC_curve_IoU_{iou}")
        if curve:
            axes.plot(FP_RATES, curve, color=colour, linestyle=dashes, marker=".", label=f"IoU {iou}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(FP_RATES, _RATE_LABELS)
    axes.set_ylim(-0.02, 1.03)
    finish(axes, "false alarms per case", "share of lesions found")
    figure.legend(loc="outside upper left", fontsize=LETTERS - 2, frameon=False, ncols=4)
    points = ", ".join(
        f"{value:.2f} at {label}"
        for value, label in zip(whole.sensitivity_at()[[0, 3, 6]], ("1/8", "1", "8"), strict=True)
    )
    return png(
        figure,
        f"FROC curve at IoU 0.10: share of lesions found {points} false alarms per case.",
        "FROC curve: how many lesions are found when more false alarms are allowed. The blue band holds "
        "the 95 % intervals over patients, rate by rate; higher overlaps (IoU) ask for boxes that fit better.",
    )


def _band(
    records: Sequence[CaseRecord], rates: NDArray[np.float64], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    resampling = Resampling.of([record.patient_id for record in records], draws=_BAND_DRAWS, seed=seed)
    ranked = rank_detections(records, iou=OPERATING_IOU, max_detections=None)
    whole, *curves = [_sensitivities(ranked, rates, weights) for weights in (None, *resampling.weights)]
    values = np.stack(curves) if curves else np.zeros((0, len(rates)))
    ends = [resampling.interval(float(v), column) for v, column in zip(whole, values.T, strict=True)]
    known = [(each.low, each.high) for each in ends if each.low is not None and each.high is not None]
    if len(known) < len(ends):
        return None
    low, high = np.array(known).T
    return low, high


def _sensitivities(
    ranked: RankedDetections, rates: NDArray[np.float64], weights: Weights | None
) -> NDArray[np.float64]:
    """``[R]`` at the rates; NaN without lesions."""
    curve = froc_curve(ranked, weights)
    return np.full(len(rates), np.nan) if curve is None else curve.sensitivity_at(tuple(rates))


def ablation_chart(rows: Sequence[AblationRow], names: Sequence[str]) -> Picture | None:
    """Lesion sensitivity and slice precision of every variant as dots with intervals; None without values."""
    columns = (
        ("paper_sensitivity", "lesion sensitivity", BLUE),
        ("paper_precision", "slice precision", ORANGE),
    )
    if all(row.scores[key].value is None for row in rows for key, _, _ in columns if key in row.scores):
        return None
    figure, [axes] = new_figure(1.3 + 0.42 * len(rows))
    for offset, (key, name, colour) in zip((-0.13, 0.13), columns, strict=True):
        for index, row in enumerate(rows):
            score = row.scores.get(key)
            if score is None or score.value is None:
                continue
            if score.ci_low is not None and score.ci_high is not None:
                axes.plot(
                    [score.ci_low, score.ci_high], [index + offset] * 2, color=colour, linewidth=2, alpha=0.45
                )
            axes.plot(score.value, index + offset, "o", color=colour, markersize=7)
        axes.plot([], [], "o", color=colour, label=name)
    axes.set_yticks(range(len(rows)), list(names))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    finish(axes, "score (bar: 95 % interval)", "")
    figure.legend(loc="outside upper left", fontsize=LETTERS - 2, frameon=False, ncols=2)
    return png(
        figure,
        "Lesion sensitivity and slice precision of each variant; the values stand in the table.",
        "Each step keeps the sensitivity (blue) as far right as it can while it moves precision (orange) right.",
    )


def strata_chart(groups: Mapping[str, Sequence[Stratum]]) -> Picture:
    """Hits by accepted boxes (filled) and at 1 false alarm per case (open) of every stratum, with intervals."""
    names, rows = [], []
    for group, strata in groups.items():
        short = group.partition(",")[0]
        names += [f"{short}: {stratum.name} (n={stratum.lesions})" for stratum in strata]
        rows += list(strata)
    figure, [axes] = new_figure(1.4 + 0.4 * len(rows))
    columns: tuple[tuple[float, str, str, Callable[[Stratum], Score | None]], ...] = (
        (-0.14, BLUE, "hit by an accepted box", lambda stratum: stratum.paper_sensitivity),
        (0.14, ORANGE, "found at 1 false alarm per case", lambda stratum: stratum.sensitivity_at_fp.get("1")),
    )
    for offset, colour, label, read in columns:
        for place, stratum in enumerate(rows):
            _dot(axes, read(stratum), place + offset, colour)
        axes.plot([], [], "o", color=colour, label=label)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    for edge in np.cumsum([len(strata) for strata in groups.values()])[:-1]:
        axes.axhline(float(edge) - 0.5, color=GREY, linewidth=0.8)
    finish(axes, "share of the lesions (bar: interval)", "")
    figure.legend(loc="outside upper left", fontsize=LETTERS - 2, frameon=False, ncols=1)
    return png(
        figure,
        "Share of the lesions found by kind of lesion: "
        + "; ".join(names)
        + ". The values stand in the tables.",
        "Where the dots fall to the left, lesions of that kind are missed. n is the number of lesions.",
    )


def _dot(axes: Axes, score: Score | None, place: float, colour: str) -> None:
    if score is None or score.value is None:
        return
    if score.ci_low is not None and score.ci_high is not None:
        axes.plot([score.ci_low, score.ci_high], [place] * 2, color=colour, linewidth=2, alpha=0.45)
    axes.plot(score.value, place, "o", color=colour, markersize=6)


def difference_chart(scores: Mapping[str, Difference], level: float) -> Picture | None:
    """Differences of two models with intervals, green where the interval lies above 0; None without any."""
    rows = [
        (score_name(key), each.difference, each.ci_low, each.ci_high, each.p is not None)
        for key, each in scores.items()
        if each.difference is not None
    ]
    if not rows:
        return None
    figure, [axes] = new_figure(1.1 + 0.36 * len(rows))
    axes.axvline(0, color="#333333", linewidth=1)
    for place, (_, value, low, high, tested) in enumerate(rows):
        colour = GREY
        if low is not None and high is not None:
            colour = GREY if not tested else GREEN if low > 0 else ORANGE if high < 0 else GREY
            axes.plot([low, high], [place] * 2, color=colour, linewidth=2.4, alpha=0.6)
        axes.plot(value, place, "o", color=colour, markersize=7)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    finish(axes, "difference, this minus the other", "")
    listed = ", ".join(f"{name} {value:+.2f}" for name, value, *_ in rows)
    return png(
        figure,
        f"Differences of the two models: {listed}.",
        f"Difference of every score with its {percent(level)} interval: green where this model is better beyond "
        "chance, orange where it is worse, grey where it cannot be told (always so with fewer than ten patients).",
    )


def landscape_chart(landscape: Landscape, criterion: str) -> Picture:
    """Heat map of the best value of each pair of settings; the chosen pair is framed."""
    rows, columns = landscape.values.shape
    figure, [axes] = new_figure(min(1.7 + 0.36 * rows, 5.2))
    best, worst = float(np.nanmax(landscape.values)), float(np.nanmin(landscape.values))
    floor = max(worst, best - _COLOUR_SPAN)
    image = axes.imshow(
        landscape.values, cmap="cividis", aspect="auto", vmin=floor, vmax=max(best, floor + 1e-6)
    )
    axes.set_xticks(range(columns), landscape.column_labels, rotation=45 if columns > 7 else 0)
    axes.set_yticks(range(rows), landscape.row_labels)
    if landscape.values.size <= 60:
        _write_values(axes, landscape.values, (floor + best) / 2)
    if landscape.chosen is not None:
        _frame(axes, landscape.chosen)
    finish(axes, landscape.column_name, landscape.row_name, grid=False)
    bar = figure.colorbar(image, ax=axes, fraction=0.06, extend="min" if worst < floor else "neither")
    bar.set_label(criterion, fontsize=LETTERS)
    bar.ax.tick_params(labelsize=LETTERS - 2)
    alt = (
        f"{criterion} over {landscape.row_name} and {landscape.column_name}: {worst:.2f} to {best:.2f}. "
        f"{landscape.chosen_text}"
    )
    return png(figure, alt, f"{landscape.caption} {landscape.chosen_text}".strip())


def _write_values(axes: Axes, values: NDArray[np.float64], middle: float) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "black" if value > middle else "white"
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=LETTERS - 3.5, color=colour
            )


def _frame(axes: Axes, cell: tuple[int, int]) -> None:
    from matplotlib.patches import Rectangle

    row, column = cell
    style: dict[str, Any] = {"fill": False, "zorder": 5}
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, edgecolor="white", linewidth=5, **style))
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, edgecolor="#d00000", linewidth=2.6, **style))


def filter_chart(values: Mapping[str, float], chosen: str, criterion: str, *, joint: bool = False) -> Picture:
    """Best value at each setting of the zone filter; the chosen one is green."""
    figure, [axes] = new_figure(2.6)
    colours = [GREEN if name == chosen else GREY for name in values]
    axes.bar(list(values), list(values.values()), color=colours)
    low, high = min(values.values()), max(values.values())
    room = max(high - low, 0.02)
    axes.set_ylim(max(0.0, low - room) if low >= 0 else low - room, high + 0.25 * room)
    axes.tick_params(axis="x", rotation=45 if len(values) > 8 else 0)
    finish(axes, "zone filter: allowed distance outside the search region, mm", criterion)
    listed = ", ".join(f"{name}: {value:.3f}" for name, value in values.items())
    others = "over all other thresholds" if joint else "each window alone"
    caption = (
        f"Best value at each setting of the zone filter, {others}; green is the chosen one. "
        "The axis does not start at 0."
    )
    return png(figure, f"{criterion} by zone filter: {listed}.", caption)
