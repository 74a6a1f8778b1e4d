"""Bars are for terminals."""

from __future__ import annotations

import sys

from nndet_psma.core.progress import progress_bar


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
