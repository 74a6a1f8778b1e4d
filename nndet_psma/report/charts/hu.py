"""HU of lesions against the rest of the search region, the planned windows as bars above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.channels import Window
from nndet_psma.artifacts.fingerprint import Histogram
from nndet_psma.report.page.figures import BLUE, CYCLE, GREY, LETTERS, finish, legend, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HU_RANGE = (-200.0, 300.0)
_HU_BIN = 5


def window_figure(lesions: Histogram, rest: Histogram, windows: Sequence[Window], note: str = "") -> Figure:
    """Two histograms in shares per 5 HU; without windows no bars; ``note`` stands above the curves."""
    low = min([_HU_RANGE[0], *(w.lower for w in windows)]) - 20
    high = max([_HU_RANGE[1], *(w.upper for w in windows)]) + 20
    heights = (0.42 + 0.28 * len(windows), 2.6) if windows else None
    figure, panels = new_figure(3.4 + 0.28 * len(windows), rows=1 + bool(windows), heights=heights)
    if windows:
        _draw_windows(panels[0], windows, (low, high))
    curve = panels[-1]
    for histogram, name, colour in ((rest, "rest of the search region", GREY), (lesions, "lesions", BLUE)):
        edges, share = _binned(histogram, low, high)
        curve.stairs(share, edges, fill=True, alpha=0.45, color=colour, label=name)
        curve.stairs(share, edges, color=colour, linewidth=1.4)
    curve.set_xlim(low, high)
    finish(curve, "CT value, HU", f"share per {_HU_BIN} HU, %", note)
    legend(curve, "upper right")
    return figure


def _draw_windows(axes: Axes, windows: Sequence[Window], span: tuple[float, float]) -> None:
    for row, window in enumerate(windows):
        colour = CYCLE[row % len(CYCLE)]
        axes.barh(row, window.upper - window.lower, left=window.lower, height=0.62, color=colour, alpha=0.85)
        text = f"{window.lower:g} to {window.upper:g} HU"
        axes.annotate(
            text, (window.upper, row), (5, 0), textcoords="offset points", va="center", fontsize=LETTERS - 2.5
        )
    axes.set_xlim(*span)
    axes.set_ylim(len(windows) - 0.4, -0.6)
    axes.set_title("windows", fontsize=LETTERS, loc="left")
    axes.axis("off")


def _binned(histogram: Histogram, low: float, high: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    edges = np.arange(np.floor(low / _HU_BIN) * _HU_BIN, high + _HU_BIN, _HU_BIN)
    values = histogram.lowest + np.arange(len(histogram.counts))
    counts, _ = np.histogram(values, bins=edges, weights=np.array(histogram.counts, dtype=float))
    return edges, 100 * counts / max(histogram.total, 1)
