"""``progress.png`` of a stage, as users of nnU-Net know it: losses, learning rate and speed against steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.atomic import atomic_file
from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER
from nndet_psma.trainers.metrics_log import METRICS_FILE, VALIDATION, read_metrics
from nndet_psma.trainers.observer import StepReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import nn

PLOT_FILE = "progress.png"
_EVERY_SECONDS = 60.0
_SHARE_OF_TIME = 0.01  # at most this share of the training's time is spent on drawing
_SMOOTHED_SHARE = 0.05  # of the rows, one side of the mean
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito's


class ProgressPlot:
    """Draws ``progress.png`` from ``metrics.csv``; an observer of the loop, to be named after ``MetricsLog``.

    It is drawn again when the file has new rows, a minute has passed and drawing would take no more than a hundredth
    of the time since, and once at the end. A figure that cannot be drawn is logged and ends the drawing only.

    Args:
        folder: of the stage.
        title: above the figure.
        every_seconds: between two drawings.
        clock: seconds; for tests.
    """

    def __init__(
        self,
        folder: Path,
        title: str = "",
        every_seconds: float = _EVERY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.metrics, self.target = folder / METRICS_FILE, folder / PLOT_FILE
        self.title, self.every_seconds = title, every_seconds
        self._clock = clock
        self._due = clock() + every_seconds
        self._drawn: tuple[int, int] | None = None
        self._broken = False

    def on_step(self, report: StepReport, model: nn.Module) -> None:
        """Draw when it is time; costs a look at the clock otherwise."""
        if self._clock() < self._due:
            return
        begin = self._clock()
        self._draw()
        now = self._clock()
        self._due = now + max(self.every_seconds, (now - begin) / _SHARE_OF_TIME)

    def on_end(self, finished: bool) -> None:
        """Draw the last state."""
        self._draw()

    def _draw(self) -> None:
        state = _state(self.metrics)
        if self._broken or state is None or state == self._drawn:
            return
        try:
            draw_progress(self.metrics, self.target, self.title)
        except (OSError, ValueError, ImportError, UserError) as error:
            self._broken = True
            LOGGER.warning("no %s: %s", PLOT_FILE, error)
        self._drawn = state


def draw_progress(metrics: Path, target: Path, title: str = "") -> None:
    """Draw a ``metrics.csv`` to a PNG; without rows nothing is written."""
    rows = read_metrics(metrics)
    if not rows:
        return
    figure = progress_figure(rows, title)
    with atomic_file(target) as temporary:
        figure.savefig(temporary, dpi=100)


def progress_figure(rows: Sequence[dict[str, float]], title: str = "") -> Figure:
    """Panels over each other: losses, validation scores when rows have any, learning rate, speed.

    Losses and speed are light as measured and bold as a mean over neighbouring rows.
    """
    from matplotlib.figure import Figure

    scores = _columns(rows, lambda name: name.startswith(VALIDATION))
    count = 4 if scores else 3
    figure = Figure(figsize=(9, 2.6 * count + 0.6), layout="constrained")
    panels = list(np.ravel(figure.subplots(count, 1, sharex=True)))
    _draw_losses(panels[0], rows)
    if scores:
        _draw_scores(panels[1], rows, scores)
    _draw_rate(panels[-2], rows)
    _draw_speed(panels[-1], rows)
    for panel in panels:
        panel.grid(alpha=0.25)
    panels[-1].set_xlabel("step")
    figure.suptitle(title)
    return figure


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over up to 5 % of all values on each side; fewer, but as many on each side, towards the ends."""
    count = len(values)
    index = np.arange(count)
    reach = np.minimum(np.minimum(index, count - 1 - index), max(1, round(_SMOOTHED_SHARE * count)))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    means: NDArray[np.float64] = (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)
    return means


def _draw_losses(panel: Axes, rows: Sequence[dict[str, float]]) -> None:
    names = _columns(rows, lambda name: name.startswith("loss"))
    names.sort(key=lambda name: name != "loss")
    for name, colour in zip(names, _COLOURS, strict=False):
        label = "loss" if name == "loss" else name.removeprefix("loss_")
        _draw_smoothed(panel, rows, name, colour, label, 2.2 if name == "loss" else 1.2)
    _, totals = _values(rows, "loss")
    if len(totals):
        # the first steps of a network from scratch would press all others flat
        panel.set_ylim(0, 1.1 * max(float(np.quantile(totals, 0.98)), 1e-9))
    panel.set_ylabel("loss")
    panel.legend(ncols=min(5, max(1, len(names))), fontsize=8, loc="upper right")


def _draw_scores(panel: Axes, rows: Sequence[dict[str, float]], names: Sequence[str]) -> None:
    for name, colour in zip(names, _COLOURS, strict=False):
        panel.plot(
            *_values(rows, name), "o-", color=colour, markersize=3, label=name.removeprefix(VALIDATION)
        )
    panel.set_ylabel("validation")
    panel.legend(fontsize=8, loc="lower right")


def _draw_rate(panel: Axes, rows: Sequence[dict[str, float]]) -> None:
    steps, rates = _values(rows, "learning_rate")
    panel.plot(steps, rates, color=_COLOURS[0])
    if len(rates) and rates.min() > 0:
        panel.set_yscale("log")
    panel.set_ylabel("learning rate")


def _draw_speed(panel: Axes, rows: Sequence[dict[str, float]]) -> None:
    _draw_smoothed(panel, rows, "seconds_per_step", _COLOURS[0], "seconds per step", 2.2)
    panel.set_ylim(bottom=0)
    panel.set_ylabel("seconds per step", color=_COLOURS[0])
    other = panel.twinx()
    _draw_smoothed(other, rows, "images_per_second", _COLOURS[1], "images per second", 2.2)
    other.set_ylim(bottom=0)
    other.set_ylabel("images per second", color=_COLOURS[1])


def _draw_smoothed(
    panel: Axes, rows: Sequence[dict[str, float]], name: str, colour: str, label: str, width: float
) -> None:
    steps, values = _values(rows, name)
    panel.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    panel.plot(steps, smoothed(values), color=colour, linewidth=width, label=label)


def _columns(rows: Sequence[dict[str, float]], wanted: Callable[[str], bool]) -> list[str]:
    return [name for name in dict.fromkeys(name for row in rows for name in row) if wanted(name)]


def _values(rows: Sequence[dict[str, float]], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of a column, of the rows where it is a finite number."""
    pairs = [(row["step"], row[name]) for row in rows if np.isfinite(row.get(name, np.nan))]
    table = np.array(pairs, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _state(file: Path) -> tuple[int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
