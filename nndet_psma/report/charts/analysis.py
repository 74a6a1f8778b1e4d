"""One figure per question that a planner asks of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nndet_psma.artifacts.fingerprint import Fingerprint, Histogram
from nndet_psma.report.charts.hu import window_figure
from nndet_psma.report.page.figures import (
    BLUE,
    CYCLE,
    GREY,
    LETTERS,
    ORANGE,
    finish,
    legend,
    new_figure,
    whole_numbers,
)
from nndet_psma.systems.system import Facts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_BINS = 16
_FAR_MM = 20.0  # margins up to here are always shown


def spacing_figure(fingerprint: Fingerprint, facts: Facts | None) -> Figure:
    """Voxel sizes of the cases; the planned ones as a line."""
    figure, panels = new_figure(2.9, columns=2)
    for panel, axis, name in ((panels[0], 0, "slice distance, mm"), (panels[1], 2, "pixel size, mm")):
        _histogram(panel, [case.spacing[axis] for case in fingerprint.cases], BLUE)
        if facts is not None and facts.spacing is not None:
            _mark(panel, facts.spacing[axis], f"planned {facts.spacing[axis]:.3g} mm")
        finish(panel, name, "cases")
        whole_numbers(panel, "y")
    _title(figure, f"Voxel sizes of {len(fingerprint.cases)} cases")
    return figure


def image_size_figure(fingerprint: Fingerprint, facts: Facts | None) -> Figure:
    """Extents of image, body and CTV; along z and in-plane."""
    figure, panels = new_figure(3.3, columns=2)
    whole: dict[str, list[tuple[float, ...] | None]] = {
        "image": [(0.0, 0.0, 0.0, *map(float, case.shape)) for case in fingerprint.cases],
        "body": [case.body_box for case in fingerprint.cases],
    }
    if any(case.ctv_box is not None for case in fingerprint.cases):
        whole["CTV"] = [case.ctv_box for case in fingerprint.cases]
    for number, boxes in enumerate(whole.values()):
        sizes = [
            [(box[3 + axis] - box[axis]) * case.spacing[axis] for axis in range(3)]
            for box, case in zip(boxes, fingerprint.cases, strict=True)
            if box is not None
        ]
        for panel, values in ((panels[0], [s[0] for s in sizes]), (panels[1], [max(s[1:]) for s in sizes])):
            _dots(panel, number, values, CYCLE[number])
    for panel, title in ((panels[0], "height (head to feet), mm"), (panels[1], "longer in-plane side, mm")):
        panel.set_yticks(range(len(whole)), list(whole))
        panel.set_ylim(len(whole) - 0.5, -0.5)
        panel.set_xlim(0, 1.04 * panel.get_xlim()[1])  # room for the dots at the end
        finish(panel, title, "")
    _title(figure, f"Extents in {len(fingerprint.cases)} cases; strokes are medians")
    return figure


def lesion_size_figure(fingerprint: Fingerprint, facts: Facts | None) -> Figure | None:
    """Short axis and volume of the lesions; None without lesions."""
    lesions = fingerprint.lesions
    if not lesions:
        return None
    figure, (left, right) = new_figure(2.9, columns=2)
    _histogram(left, [lesion.short_axis_mm for lesion in lesions], BLUE)
    _mark(left, float(np.median([lesion.short_axis_mm for lesion in lesions])), "median")
    volumes = np.array([lesion.volume_mm3 / 1000 for lesion in lesions])
    right.hist(volumes, bins=_log_bins(volumes), color=BLUE, edgecolor="white")
    _log_axis(right)
    _mark(right, float(np.median(volumes)), "median")
    for panel, name in ((left, "short axis, mm"), (right, "volume, ml")):
        finish(panel, name, "lesions")
        whole_numbers(panel, "y")
    _title(figure, f"Sizes of {len(lesions)} lesions")
    return figure


def slice_size_figure(fingerprint: Fingerprint, facts: Facts | None) -> Figure | None:
    """Slices that a lesion spans, and the boxes of its slices; None without lesions."""
    lesions = fingerprint.lesions
    if not lesions:
        return None
    figure, (left, right) = new_figure(3.1, columns=2)
    spans = [lesion.slices for lesion in lesions]
    if max(spans) <= 30:
        values, counts = np.unique(spans, return_counts=True)
        left.bar(values, counts, width=0.8, color=BLUE)
    else:
        _histogram(left, spans, BLUE)
    if facts is not None and facts.slices_seen is not None:
        shown = facts.slices_seen
        _mark(left, shown, f"planned input: {shown}")
    finish(left, "axial slices of a lesion", "lesions")
    whole_numbers(left, "xy")
    sizes = np.array([size for lesion in lesions for size in lesion.slice_sizes_mm])
    alpha = float(np.clip(300 / len(sizes), 0.08, 0.7))
    right.scatter(sizes[:, 1], sizes[:, 0], s=12, color=BLUE, alpha=alpha, linewidths=0)
    top = float(sizes.max()) * 1.08
    right.plot([0, top], [0, top], color=GREY, linewidth=1)
    right.set_xlim(0, top)
    right.set_ylim(0, top)
    right.set_aspect("equal")
    finish(right, "width in a slice, mm", "height in a slice, mm")
    _title(figure, f"{len(lesions)} lesions in {len(sizes)} slices")
    return figure


def hu_figure(fingerprint: Fingerprint, facts: Facts | None) -> Figure | None:
    """HU of the lesions against the rest of the search region, the windows above; None without lesions on CT."""
    lesions = Histogram.pooled([case.lesion_hu for case in fingerprint.cases])
    rest = Histogram.pooled([case.region_hu for case in fingerprint.cases])
    if not lesions.counts:
        return None
    separability = fingerprint.summary.hu_separability
    note = f"{lesions.total} lesion voxels"
    note += "" if separability is None else f"; AUC lesion against rest {separability.auc:.2f}"
    return window_figure(lesions, rest, [] if facts is None else facts.windows, note)


def margin_figure(fingerprint: Fingerprint, facts: Facts | None) -> Figure | None:
    """Share of lesions wholly inside the grown CTV against the margin; None when no lesion has a CTV."""
    outside = [lesion.outside_ctv_mm for lesion in fingerprint.lesions if lesion.outside_ctv_mm is not None]
    if not outside:
        return None
    figure, (axes,) = new_figure(3.2)
    far = min(max(_FAR_MM, max(outside) * 1.05), 10 * _FAR_MM)
    steps = np.concatenate([[0.0], np.sort(outside), [max(far, max(outside))]])
    shares = [100 * float(np.mean(np.array(outside) <= step)) for step in steps]
    axes.step(steps, shares, where="post", color=BLUE, linewidth=1.8)
    axes.set_xlim(0, far)
    axes.set_ylim(0, 104)
    if facts is not None and facts.margin_mm is not None:
        share = 100 * float(np.mean(np.array(outside) <= facts.margin_mm))
        _mark(axes, facts.margin_mm, f"planned {facts.margin_mm:g} mm: {share:.1f} %")
    finish(axes, "margin round the CTV, mm", "lesions wholly inside, %")
    _title(figure, f"What growing the CTV contains of {len(outside)} lesions")
    return figure


def _histogram(axes: Axes, values: Sequence[float], colour: str) -> None:
    low, high = min(values), max(values)
    if high - low < 1e-6 * max(abs(high), 1e-9):  # all alike: one bar, not sixteen of no width
        wide = max(0.1 * abs(high), 0.1)
        axes.bar([high], [len(values)], width=wide, color=colour)
        axes.set_xlim(high - 3 * wide, high + 3 * wide)
        return
    axes.hist(values, bins=_bins(len(values)), color=colour, edgecolor="white")


def _bins(count: int) -> int:
    return int(np.clip(2 * np.sqrt(count), 5, _MOST_BINS))


def _log_bins(values: np.ndarray) -> list[float]:
    low, high = float(values.min()), float(values.max())
    if high < low * 1.05:
        low, high = low / 2, high * 2
    return [float(edge) for edge in np.geomspace(low * 0.999, high * 1.001, _bins(len(values)) + 1)]


def _log_axis(axes: Axes) -> None:
    """Logarithmic x with ticks at 1, 2 and 5, written as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _dots(axes: Axes, row: int, values: Sequence[float], colour: str) -> None:
    """All values on one line, those of equal value beside each other, and their median as a stroke."""
    if len(values) == 0:
        return
    shifts = 0.24 * np.sin(2.4 * np.arange(len(values)))  # no random numbers: the same figure every time
    axes.scatter(values, row + shifts, s=16, color=colour, alpha=0.6, linewidths=0)
    axes.plot([np.median(values)] * 2, [row - 0.34, row + 0.34], color=colour, linewidth=2)


def _title(figure: Figure, text: str) -> None:
    figure.suptitle(text, fontsize=LETTERS, x=0.01, ha="left")


def _mark(axes: Axes, value: float, text: str) -> None:
    """A dashed vertical line that is always in sight, named in a legend above the bars."""
    left, right = axes.get_xlim()
    if axes.get_xscale() == "linear":
        room = 0.05 * (right - left)
        axes.set_xlim(min(left, value - room), max(right, value + room))
    if axes.patches:
        axes.set_ylim(top=1.2 * axes.get_ylim()[1])
    axes.axvline(value, color=ORANGE, linewidth=1.6, linestyle="--", label=text)
    legend(axes, "upper right" if axes.patches else "lower right")
