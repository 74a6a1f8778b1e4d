"""Figures of the data and the training: windows over HU histograms, sizes, counts, losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nndet_psma.artifacts.channels import Window
from nndet_psma.artifacts.fingerprint import Fingerprint, Histogram
from nndet_psma.report.charts.hu import window_figure
from nndet_psma.report.page.content import Picture
from nndet_psma.report.page.figures import (
    BLUE,
    CYCLE,
    finish,
    legend,
    new_figure,
    png,
    whole_numbers,
)
from nndet_psma.trainers.metrics_log import VALIDATION

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def window_chart(fingerprint: Fingerprint, windows: Sequence[Window]) -> Picture | None:
    """HU of the lesions and of the rest of the search region, the windows as bars above; None without lesion HU."""
    lesions = Histogram.pooled([case.lesion_hu for case in fingerprint.cases])
    rest = Histogram.pooled([case.region_hu for case in fingerprint.cases])
    if not lesions.counts:
        return None
    figure = window_figure(lesions, rest, windows)
    alt = "HU windows " + ", ".join(f"{w.lower:g} to {w.upper:g}" for w in windows)
    alt += f" over the histogram of HU in lesions (median {lesions.quantile(0.5):.0f} HU) and around them."
    caption = (
        "What each window shows: values left of a bar turn black, values right of it white. "
        f"Half of all lesion voxels lie below {lesions.quantile(0.5):.0f} HU."
    )
    return png(figure, alt, caption)


def data_chart(fingerprint: Fingerprint) -> Picture:
    """Two histograms: lesions per case, and the largest axial extent of the lesions."""
    per_case = [len(case.lesions) for case in fingerprint.cases]
    sizes = [max(lesion.size_mm[1:]) for lesion in fingerprint.lesions]
    figure, (left, right) = new_figure(2.9, columns=2)
    values, counts = np.unique(per_case, return_counts=True)
    left.bar(values, counts, width=0.8, color=BLUE)
    left.set_xlim(-0.6, max(per_case, default=0) + 1)
    whole_numbers(left, "xy")
    finish(left, "lesions per case", "cases")
    if sizes:
        pixel = float(np.median([case.spacing[2] for case in fingerprint.cases]))
        right.hist(sizes, bins=_size_bins(sizes, pixel), color=BLUE, edgecolor="white")
    right.set_xlim(left=0)
    whole_numbers(right, "y")
    finish(right, "axial diameter, mm", "lesions")
    median = f"{np.median(sizes):.0f} mm" if sizes else "undefined"
    alt = (
        f"Lesions per case: {min(per_case, default=0)} to {max(per_case, default=0)}. "
        f"Axial lesion diameter: median {median}."
    )
    caption = "Training data. The axial diameter is the longer in-plane side of the lesion's box."
    return png(figure, alt, caption)


def _size_bins(sizes: Sequence[float], pixel: float) -> list[float]:
    """Round bin edges, no finer than a pixel: sizes are whole pixels, finer bins would show gaps."""
    wide = (max(sizes) - min(sizes)) / 12
    step = next((s for s in (1.0, 2.0, 5.0, 10.0, 20.0) if s >= max(wide, pixel - 0.05)), 50.0)
    first = np.floor(min(sizes) / step) * step
    edges = np.arange(first, max(sizes) + 2 * step, step) - 1e-6
    return [float(edge) for edge in edges]  # a size on an edge belongs to the right bin


def training_chart(
    stages: Sequence[str], metrics: Mapping[int, Mapping[str, Sequence[Mapping[str, float]]]]
) -> Picture | None:
    """Loss against steps, one panel per stage and one line per fold; None without rows."""
    shown = [s for s in stages if any(rows.get(s) for rows in metrics.values())]
    if not shown:
        return None
    columns = 1 if len(shown) == 1 else 2
    rows = -(-len(shown) // columns)
    figure, panels = new_figure(0.5 + 2.3 * rows, rows, columns)
    for panel, stage in zip(panels, shown, strict=False):
        for fold, by_stage in metrics.items():
            _draw_loss(panel, by_stage.get(stage, []), fold)
        lowest = min(row["loss"] for by_stage in metrics.values() for row in by_stage.get(stage, []))
        if lowest >= 0:  # minus Dice, which nnU-Net adds to cross-entropy, has no natural end
            panel.set_ylim(bottom=0)
        panel.set_xlim(left=0)
        whole_numbers(panel, "x")
        finish(panel, "step", "loss", stage)
    for panel in panels[len(shown) :]:
        panel.set_visible(False)
    if len(metrics) > 1:
        legend(panels[0])
    ends = [f"{stage} {rows[-1]['loss']:.2f}" for stage in shown for rows in _some_rows(metrics, stage)]
    return png(
        figure,
        "Training loss against steps; last values: " + ", ".join(ends) + ".",
        "Training loss of every stage (sum of all parts of the loss). A falling curve that levels off is "
        "what one hopes for; it says nothing about unseen cases.",
    )


def validation_chart(
    stages: Sequence[str], metrics: Mapping[int, Mapping[str, Sequence[Mapping[str, float]]]]
) -> Picture | None:
    """Validation scores during training, one line per stage and fold; None where training did not validate."""
    lines = [
        (fold, stage, name, points)
        for fold, by_stage in metrics.items()
        for stage in stages
        for name in sorted(
            {key for row in by_stage.get(stage, []) for key in row if key.startswith(VALIDATION)}
        )
        if (points := [(row["step"], row[name]) for row in by_stage[stage] if name in row])
    ]
    if not lines:
        return None
    figure, [axes] = new_figure(3.4)
    for fold, stage, name, points in lines:
        dashes = "-" if fold % 2 == 0 else "--"
        colour = CYCLE[list(stages).index(stage) % len(CYCLE)]
        label = f"{stage}, fold {fold}" + (
            "" if name == f"{VALIDATION}ap" else f", {name.removeprefix(VALIDATION)}"
        )
        axes.plot(*zip(*points, strict=True), dashes, color=colour, marker="o", markersize=4, label=label)
    axes.set_xlim(left=0)
    axes.set_ylim(-0.02, 1.02)
    whole_numbers(axes, "x")
    only_ap = all(name == f"{VALIDATION}ap" for _, _, name, _ in lines)
    finish(axes, "step", "validation AP" if only_ap else "validation score")
    if len(lines) <= 8:
        legend(axes)
    ends = ", ".join(f"{stage} fold {fold} {points[-1][1]:.2f}" for fold, stage, _, points in lines)
    return png(
        figure,
        f"Validation score against steps; last values: {ends}.",
        "Validation score during training, on validation cases of the fold; where the best weights are kept, it "
        "chooses them.",
    )


def _some_rows(
    metrics: Mapping[int, Mapping[str, Sequence[Mapping[str, float]]]], stage: str
) -> list[Sequence[Mapping[str, float]]]:
    """Rows of ``stage`` in the first fold that has any."""
    return [by_stage[stage] for by_stage in metrics.values() if by_stage.get(stage)][:1]


def _draw_loss(axes: Axes, rows: Sequence[Mapping[str, float]], fold: int) -> None:
    if not rows:
        return
    steps, losses = [row["step"] for row in rows], [row["loss"] for row in rows]
    few = "o" if len(rows) < 15 else None
    colour = CYCLE[fold % len(CYCLE)]
    axes.plot(steps, losses, color=colour, marker=few, markersize=4, linewidth=1.4, label=f"fold {fold}")
