"""Arguments that several commands share, spelled as in nnDetection."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from nndet_psma.core.terminal import safe_console

if TYPE_CHECKING:
    from rich.console import Console

_FILE_WIDTH = 150  # columns of tables that go to a file or pipe

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


def say(text: str) -> None:
    """One line of progress on standard output."""
    print(text, flush=True)


def console() -> Console:
    """Where tables go: as wide as the terminal, or wide enough to read in a log."""
    return safe_console(sys.stdout, width=None if sys.stdout.isatty() else _FILE_WIDTH)
