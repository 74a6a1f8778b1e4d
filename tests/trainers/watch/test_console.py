"""What the bar and the log say; what happens without a terminal."""

from __future__ import annotations

import io
import logging
import re

import pytest

from nndet_psma.trainers.observer import StepReport
from nndet_psma.trainers.watch import console
from nndet_psma.trainers.watch.console import ConsoleProgress, Smoothed


class Terminal(io.StringIO):
    def isatty(self):
        return True


def _report(step, iterations, loss=1.0, seconds=0.5):
    return StepReport(step, iterations, {"loss_box_reg": loss / 4, "loss": loss}, 0.1, 4, seconds, None)


def _lines(caplog, iterations, **more):
    now = [0.0]
    watch = ConsoleProgress("fold 0 wsi", iterations, io.StringIO(), clock=lambda: now[0], **more)
    with caplog.at_level(logging.INFO, logger="nndet_psma"):
        for step in range(1, iterations + 1):
            now[0] += 0.75
            watch.on_step(_report(step, iterations), None)
        watch.on_end(True)
    return [record.getMessage() for record in caplog.records]


def test_smoothed_by_hand():
    """Plain mean of 2 and 4; then half of the way from 3 to 5 at a weight of 0.5."""
    mean = Smoothed(0.5)
    assert [mean.add(value) for value in (2, 4, 5)] == [2, 3, 4]
    slow = Smoothed(0.05)
    assert [slow.add(value) for value in (1, 2, 3, 6)] == pytest.approx([1, 1.5, 2, 3])


def test_a_line_every_tenth_without_a_terminal(caplog, monkeypatch):
    """4 images in 0.5 s are 8/s; steps begin every 0.75 s, but the first took 0.5 s: after two steps a mean of 0.625,
    18 steps to go, 11.25 s."""
    monkeypatch.setattr(console, "memory_gb", lambda: 1.26)
    lines = _lines(caplog, 20)
    assert len(lines) == 10
    assert lines[0] == (
        "fold 0 wsi: step 2 of 20, loss 1.000, 0:00:11 left, 8.0 images/s, 1.3 GB (box_reg 0.250)"
    )
    assert lines[-1].startswith("fold 0 wsi: step 20 of 20")
    assert "0:00:00 left" in lines[-1]


@pytest.mark.parametrize(("iterations", "steps"), [(3, [1, 2, 3]), (25, [2, 4, 6, 8, 25])])
def test_lines_of_short_stages(caplog, iterations, steps):
    found = [int(re.search(r"step (\d+)", line)[1]) for line in _lines(caplog, iterations)]
    assert found[:4] + found[-1:] == steps if iterations > 3 else found == steps
    assert len(set(found)) == len(found)


def test_a_plain_line_every_few_percent_without_a_terminal(monkeypatch):
    """A step of 4 s: 5 % of 40 are two steps, but ten seconds are three: lines at steps 3, 6, ... and at the end."""
    monkeypatch.setattr(console, "memory_gb", lambda: 1.26)
    stream, now = io.StringIO(), [0.0]
    watch = ConsoleProgress("fold 0 wsi", 40, stream, clock=lambda: now[0])
    for step in range(1, 41):
        now[0] += 4
        watch.on_step(_report(step, 40, seconds=4), None)
    watch.on_end(True)
    lines = stream.getvalue().splitlines()
    assert [int(re.search(r"(\d+)/40", line)[1]) for line in lines] == [*range(3, 40, 3), 40]
    assert lines[0] == "fold 0 wsi: 3/40 (8%), loss 1.000, 0:02:28 left, 1.0 images/s, 1.3 GB (box_reg 0.250)"


def test_the_bar_begins_where_the_run_resumes():
    terminal = Terminal()
    watch = ConsoleProgress("fold 1 hu_a", 100, terminal)
    watch.on_step(_report(61, 100, loss=0.5), None)
    watch.on_end(False)
    text = terminal.getvalue()
    assert "61/100" in text  # at 80 columns, where the whole note has no room
    assert "fold 1 hu_a" in text
    assert "loss 0.500" in text


def test_a_closed_terminal_does_not_stop_the_training():
    terminal = Terminal()
    watch = ConsoleProgress("t", 4, terminal)
    watch.on_step(_report(1, 4), None)
    terminal.close()
    for step in range(2, 5):
        watch.on_step(_report(step, 4), None)
    watch.on_end(True)


def test_losses_without_a_sum():
    watch = ConsoleProgress("t", 4, io.StringIO())
    report = StepReport(1, 4, {"a": 0.25, "b": 0.5}, 0.1, 1, 0.0, None)
    watch.on_step(report, None)
    text = watch._text(report)
    assert re.fullmatch(r"loss 0.750, 0:00:00 left, 0.0 images/s, \d+\.\d GB \(a 0.250, b 0.500\)", text)
