"""progress.png: when it is drawn, what is on it, and that drawing never stops or slows a training."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nndet_psma.trainers.metrics_log import MetricsLog
from nndet_psma.trainers.observer import StepReport
from nndet_psma.trainers.watch import progress_plot
from nndet_psma.trainers.watch.progress_plot import ProgressPlot, draw_progress, progress_figure, smoothed

ROWS = [
    {
        "step": 10.0 * i, "learning_rate": 0.01 / i, "loss": 1 / i, "loss_classifier": 0.6 / i,
        "loss_box_reg": 0.4 / i, "seconds_per_step": 0.2, "images_per_second": 20.0, "memory_gb": 1.0,
    }
    for i in range(1, 41)
]  # fmt: skip


def _report(step, iterations=100):
    return StepReport(step, iterations, {"loss_a": 0.5, "loss": 1 / step}, 0.1, 4, 0.2, None)


def _metrics(folder, steps):
    log = MetricsLog(folder / "metrics.csv", 0)
    for step in range(1, steps + 1):
        log.on_step(_report(step), None)
    log.write()


@pytest.fixture
def drawings(monkeypatch):
    """Times at which something was drawn, on a clock of the test's own; drawing takes ``cost`` seconds."""

    class Drawings:
        now, cost, times = 0.0, 0.1, []

        def draw(self, metrics, target, title):
            self.times.append(self.now)
            self.now += self.cost

    found = Drawings()
    found.times = []
    monkeypatch.setattr(progress_plot, "draw_progress", found.draw)
    return found


def _train(folder, drawings, seconds, per_step=1.0):
    watch = ProgressPlot(folder, clock=lambda: drawings.now)
    log = MetricsLog(folder / "metrics.csv", 0)
    begin = drawings.now
    step = 0
    while drawings.now - begin < seconds:
        step += 1
        drawings.now += per_step
        log.on_step(_report(step), None)
        log.write()
        watch.on_step(_report(step), None)
    return watch, log


def test_once_a_minute(tmp_path, drawings):
    _train(tmp_path, drawings, 200)
    assert drawings.times == pytest.approx([60, 120.1, 180.2])  # 60 s after the end of the one before


def test_slow_drawing_takes_no_more_than_a_hundredth_of_the_time(tmp_path, drawings):
    drawings.cost = 5.0
    _train(tmp_path, drawings, 3000, per_step=25)
    assert np.diff(drawings.times).min() >= 505  # drawing, and a hundred times as long without
    assert 5 <= len(drawings.times) <= 6


def test_nothing_is_drawn_twice(tmp_path, drawings):
    watch, _ = _train(tmp_path, drawings, 62)  # the rows of the steps after 60 are new
    for _ in range(5):
        drawings.now += 100
        watch.on_step(_report(99), None)
    assert len(drawings.times) == 2
    watch.on_end(True)
    assert len(drawings.times) == 2


def test_the_last_state_is_drawn(tmp_path, drawings):
    watch, log = _train(tmp_path, drawings, 5)
    assert drawings.times == []
    log.on_end(False)
    watch.on_end(False)
    assert len(drawings.times) == 1


def test_without_metrics_nothing_happens(tmp_path):
    watch = ProgressPlot(tmp_path, every_seconds=0)
    watch.on_step(_report(1), None)
    watch.on_end(False)
    (tmp_path / "metrics.csv").write_text("step,loss\n")
    draw_progress(tmp_path / "metrics.csv", tmp_path / "progress.png")
    assert not (tmp_path / "progress.png").exists()


def test_the_figure_on_disk(tmp_path):
    _metrics(tmp_path, 30)
    ProgressPlot(tmp_path, "fold 0 wsi").on_end(True)
    with Image.open(tmp_path / "progress.png") as image:
        assert image.size == (900, 840)
        assert np.asarray(image.convert("L")).std() > 10
    assert sorted(file.name for file in tmp_path.iterdir()) == ["metrics.csv", "progress.png"]


def test_panels_and_curves():
    """Losses (total first), rate on a logarithmic axis, speed with a second axis; raw and smoothed of each."""
    figure = progress_figure(ROWS, "fold 0")
    loss, rate, speed, images = figure.axes
    assert figure.get_suptitle() == "fold 0"
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["loss", "classifier", "box_reg"]
    raw, bold = loss.lines[:2]
    assert list(raw.get_ydata()) == [row["loss"] for row in ROWS]
    assert raw.get_alpha() < 0.5
    assert bold.get_linewidth() > raw.get_linewidth()
    assert list(bold.get_ydata()) == pytest.approx(list(smoothed(np.array([row["loss"] for row in ROWS]))))
    assert rate.get_yscale() == "log"
    assert list(rate.lines[0].get_xdata()) == [row["step"] for row in ROWS]
    assert (speed.get_ylabel(), images.get_ylabel()) == ("seconds per step", "images per second")


def test_validation_has_a_panel_of_its_own_at_its_own_steps():
    rows = [dict(row) for row in ROWS]
    rows[9]["val_ap"], rows[19]["val_ap"], rows[29]["val_ap"] = 0.25, float("nan"), 0.75
    figure = progress_figure(rows)
    assert [axes.get_ylabel() for axes in figure.axes][:2] == ["loss", "validation"]
    line = figure.axes[1].lines[0]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([100, 300], [0.25, 0.75])
    assert line.get_label() == "ap"


def test_one_row_and_missing_columns_can_be_drawn():
    progress_figure(ROWS[:1]).draw_without_rendering()
    progress_figure([{"step": 1.0}, {"step": 2.0, "loss": 3.0}]).draw_without_rendering()


def test_a_huge_first_loss_does_not_hide_the_rest():
    rows = [{"step": float(i), "loss": 1000.0 if i == 1 else 1.0} for i in range(1, 101)]
    assert progress_figure(rows).axes[0].get_ylim()[1] < 2


def test_smoothing_by_hand():
    """Of 40 values, two on each side: the third is the mean of the first five; the ends have no neighbours."""
    values = np.arange(40.0) ** 2
    means = smoothed(values)
    assert means[0] == values[0]
    assert means[1] == pytest.approx((0 + 1 + 4) / 3)
    assert means[2] == pytest.approx((0 + 1 + 4 + 9 + 16) / 5)
    assert means[-1] == pytest.approx(values[-1])


@given(st.lists(st.floats(-1e6, 1e6), max_size=60))
def test_smoothing_stays_within_the_values(values):
    means = smoothed(np.array(values, dtype=float))
    assert len(means) == len(values)
    if values:
        assert min(values) - 1e-3 <= means.min()
        assert means.max() <= max(values) + 1e-3


def test_a_figure_that_fails_ends_the_drawing_only(tmp_path, caplog, monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    _metrics(tmp_path, 2)
    monkeypatch.setattr(progress_plot, "draw_progress", fail)
    watch = ProgressPlot(tmp_path, every_seconds=0)
    with caplog.at_level(logging.WARNING, logger="nndet_psma"):
        for step in range(3):
            watch.on_step(_report(step + 1), None)
            _metrics(tmp_path, step + 3)
        watch.on_end(True)
    assert [record.getMessage() for record in caplog.records] == ["no progress.png: no space left"]


def test_matplotlib_waits_until_something_is_drawn():
    watchers = ", ".join(
        f"nndet_psma.trainers.watch.{name}" for name in ("progress_plot", "pictures", "trackers")
    )
    code = f"import sys, {watchers}; "
    code += "print([m for m in ('matplotlib', 'PIL', 'accelerate', 'torch') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
