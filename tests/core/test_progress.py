"""Bars are for terminals, and a terminal may go away."""

from __future__ import annotations

import builtins
import io
import sys

import pytest

from nndet_psma.core.progress import ProgressBar, progress_bar


class Terminal(io.StringIO):
    """A terminal in memory; ``failure`` is what its connection does from then on."""

    failure: Exception | None = None

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.failure is not None:
            raise self.failure
        return super().write(text)


def _lines(steps, seconds, total, first=0, **options):
    """Plain lines of a bar that is told ``steps``, each ``seconds`` after the one before."""
    now, stream = [0.0], io.StringIO()
    bar = ProgressBar("predict", total, stream, clock=lambda: now[0], **options)
    bar.advance(first)
    for step in steps:
        now[0] += seconds
        bar.advance(step, "case_7")
    bar.close()
    return stream.getvalue().splitlines()


def test_work_of_a_few_seconds_is_silent_without_a_terminal(capsys):
    with progress_bar("train", 3) as advance:
        advance(1)
        advance(3, "loss 0.1")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    assert _lines(range(1, 21), 0.4, 20) == []


def test_a_plain_line_every_few_percent_without_a_terminal():
    """5 % of 200 are ten steps of 2 s: 20 s, longer than the ten seconds between two lines; 20 s a line, 380 s left."""
    lines = _lines(range(1, 201), 2, 200)
    assert lines[0] == "predict: 10/200 (5%), 0:06:20 left, case_7"
    assert lines[-1] == "predict: 200/200 (100%), case_7"
    assert len(lines) == 20


def test_plain_lines_are_ten_seconds_apart_and_the_last_one_is_written():
    """20 steps of 4 s: a step is 5 %, but only every third is ten seconds after the line before."""
    found = [line.split(",")[0].split()[1] for line in _lines(range(1, 21), 4, 20)]
    assert found == ["3/20", "6/20", "9/20", "12/20", "15/20", "18/20", "20/20"]


def test_resumed_work_counts_from_where_it_begins():
    """60 of 100 were done: five more in 50 s leave 35, 350 s."""
    lines = _lines(range(61, 101), 10, 100, first=60)
    assert lines[0] == "predict: 65/100 (65%), 0:05:50 left, case_7"


def test_nobody_reads_and_nothing_is_done():
    stream = io.StringIO()
    stream.close()
    bar = ProgressBar("train", 1, stream, clock=iter([0.0, 0.0, 60.0, 60.0, 60.0]).__next__)
    bar.advance(0)
    bar.advance(1)
    bar.close()


def test_a_bar_on_standard_error_of_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar("train", 3) as advance:
        advance(3, "loss 0.1")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "train" in captured.err
    assert "3/3" in captured.err
    assert "loss 0.1" in captured.err


def test_text_in_brackets_is_shown_as_it_is():
    terminal = Terminal()
    bar = ProgressBar("train", 3, terminal)
    bar.advance(3, "[loss] 0.1")
    bar.close()
    assert "[loss] 0.1" in terminal.getvalue()


@pytest.mark.parametrize(
    "failure", [BrokenPipeError(), OSError(5, "Input/output error"), ValueError("I/O operation on closed file")]
)  # fmt: skip
def test_a_terminal_that_goes_away_ends_the_bar_and_nothing_else(failure):
    streams = sys.stdout, sys.stderr
    terminal = Terminal()
    bar = ProgressBar("train", 3, terminal)
    bar.advance(1)
    assert bar.shown
    terminal.failure = failure
    bar.advance(3)
    assert not bar.shown
    assert (sys.stdout, sys.stderr) == streams  # rich wraps them while a bar is shown
    bar.advance(3, "still nothing")
    bar.close()


def test_a_terminal_that_goes_away_before_the_end():
    terminal = Terminal()
    bar = ProgressBar("train", 3, terminal)
    bar.advance(1)
    terminal.failure = BrokenPipeError()
    bar.close()
    assert not bar.shown


def test_a_terminal_that_is_gone_before_the_start():
    terminal = Terminal()
    terminal.failure = BrokenPipeError()
    streams = sys.stdout, sys.stderr
    bar = ProgressBar("train", 3, terminal)
    bar.advance(3)
    assert not bar.shown
    assert (sys.stdout, sys.stderr) == streams
    bar.close()
    closed = io.StringIO()
    closed.close()
    assert not ProgressBar("train", 3, closed).shown


def test_without_rich_there_is_no_bar(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **more):
        if name.startswith("rich"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    terminal = Terminal()
    bar = ProgressBar("train", 3, terminal)
    bar.advance(3)
    assert not bar.shown
    assert terminal.getvalue() == ""


def test_nothing_is_drawn_before_the_work_begins():
    """A bar that is never moved (its work failed to start) must not leave the terminal without a cursor."""
    terminal = Terminal()
    bar = ProgressBar("train", 3, terminal)
    assert bar.shown
    assert terminal.getvalue() == ""
    bar.close()
    assert terminal.getvalue() == ""
    bar.advance(1)
    assert terminal.getvalue() == ""


def test_the_work_goes_on_when_it_fails_inside_the_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with pytest.raises(RuntimeError, match="work"), progress_bar("train", 3):
        raise RuntimeError("work")
    assert "\x1b[?25h" in capsys.readouterr().err  # the cursor is shown again
