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


def test_silent_without_a_terminal(capsys):
    with progress_bar("train", 3) as advance:
        advance(1)
        advance(3, "loss 0.1")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


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
