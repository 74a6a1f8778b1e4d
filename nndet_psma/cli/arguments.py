"""Arguments that several commands share, spelled as in nnDetection."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

from nndet_psma.core.terminal import is_quiet, safe_console

if TYPE_CHECKING:
    from rich.console import Console

_FILE_WIDTH = 150  # columns of tables that go to a file or pipe

_WEIGHTY = re.compile(r"\b(warning|error|failed)\b", re.IGNORECASE)

MODEL_HELP = "model folder, e.g. MaskRCNN25D_PSMA25D"


def add_task(parser: argparse.ArgumentParser) -> None:
    """Positional ``task``."""
    parser.add_argument("task", help="number, name or folder name of the task, e.g. 100")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Positional ``model``."""
    parser.add_argument("model", help=MODEL_HELP)


def add_overwrites(parser: argparse.ArgumentParser) -> None:
    """``-o key=value ...`` and ``--trust-code``."""
    parser.add_argument(
        "-o",
        "--overwrites",
        nargs="+",
        action="extend",  # a second -o adds to the first
        default=[],
        metavar="KEY=VALUE",
        help="override keys of the configuration (Hydra's grammar)",
    )
    add_trust(parser)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """``--trust-code``, which :func:`nndet_psma.cli.run.run_command` obeys."""
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="import the classes outside this package that a plan or model names by dotted path: runs their code",
    )


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    """``-q`` and ``-v``, after the name of the command or of its part."""
    parser.set_defaults(quiet=False, verbose=False)
    parts = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for each in {id(p): p for action in parts for p in action.choices.values()}.values():
        _add_verbosity(each)
    _add_verbosity(parser)


def _add_verbosity(parser: argparse.ArgumentParser) -> None:
    either = parser.add_mutually_exclusive_group()
    options: dict[str, Any] = {"action": "store_true", "default": argparse.SUPPRESS}
    either.add_argument("-q", "--quiet", help="hide progress; warnings, errors and tables stay", **options)
    either.add_argument("-v", "--verbose", help="show what goes to the log files, too", **options)


def say(text: str) -> None:
    """One line of progress on standard output; a quiet command says only what warns of something."""
    if not is_quiet() or _WEIGHTY.search(text):
        print(text, flush=True)


def console() -> Console:
    """Where tables go: as wide as the terminal, or wide enough to read in a log."""
    return safe_console(sys.stdout, width=None if sys.stdout.isatty() else _FILE_WIDTH)
