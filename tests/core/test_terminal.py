"""Names of files and texts of archives cannot give the terminal orders."""

from __future__ import annotations

import argparse
import io
import sys

import pytest
from rich.table import Table
from rich.text import Text

from nndet_psma.cli.run import run_command
from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER, log_to
from nndet_psma.core.terminal import printable, safe_console, shown_safely

HOSTILE = "a\x1b]0;owned\x07\x9b2J\rb\u202ec"
SHOWN = r"a\x1b]0;owned\x07\x9b2J\rb\u202ec"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (HOSTILE, SHOWN),
        ("Größe μ 淋巴 👍\n\tLN", "Größe μ 淋巴 👍\n\tLN"),
        ("caf\udce9.nii", r"caf\udce9.nii"),  # a Latin-1 file name as Python reads it
        ("\x7f\u2028", r"\x7f\u2028"),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize("kind", ["print", "error", "user error", "warning"])
def test_commands_print_safely(capsys, kind):
    def run(_: argparse.Namespace) -> int:
        if kind == "user error":
            raise UserError("no such ROI", found=HOSTILE.replace("\r", ""))
        if kind == "warning":
            LOGGER.warning("%s", HOSTILE)
        print(HOSTILE, file=sys.stdout if kind == "print" else sys.stderr)
        return 0

    streams = sys.stdout, sys.stderr
    run_command(argparse.ArgumentParser(prog="p"), run, [])
    out = "".join(capsys.readouterr())
    assert r"a\x1b]0;owned\x07\x9b2J" in out
    assert "\x1b" not in out
    assert (sys.stdout, sys.stderr) == streams


def test_tables_keep_their_colours_and_names_have_none():
    stream = io.StringIO()
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    console = safe_console(stream, force_terminal=True, width=150, _environ={}, color_system="standard")
    console.print(table)
    console.print(Text("red", style="red"))
    text = stream.getvalue()
    assert text.count(SHOWN) == 3
    assert "\x1b[31mred" in text
    assert not any(order in text for order in ("\x1b]", "\x07", "\x9b", "\r", "\u202e"))


def test_a_console_within_a_command_is_not_escaped_twice(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with shown_safely(), shown_safely():
        safe_console(sys.stdout, force_terminal=True, color_system="standard").print(Text("red", style="red"))
        sys.stdout.writelines(["\x1b", "\n"])
    assert "\x1b[31mred" in stream.getvalue()
    assert stream.getvalue().endswith("\\x1b\n")


def test_logs_are_printable(tmp_path, monkeypatch):
    monkeypatch.setattr(LOGGER, "propagate", False)  # test workers cannot report what is no UTF-8
    with log_to(tmp_path / "stage.log"):
        LOGGER.info("case %s", HOSTILE)
        LOGGER.info("case %s", "caf\udce9")
    assert SHOWN in (tmp_path / "stage.log").read_text(encoding="utf-8")
