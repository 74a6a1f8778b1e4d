"""``nndet_unpack``: kept for nnDetection's users; our store is memory-mapped, so the command only checks it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nndet_psma.cli.arguments import say


def build_parser() -> argparse.ArgumentParser:
    """Arguments of nnDetection's command."""
    parser = argparse.ArgumentParser(
        prog="nndet_unpack",
        description="The embedded engine reads its store without unpacking; this opens every case and says so.",
    )
    parser.add_argument(
        "path", type=Path, help="folder of preprocessed cases: TASK/preprocessed/store/IDENTIFIER"
    )
    parser.add_argument("num_processes", type=int, nargs="?", default=1, help="accepted, not needed")
    return parser


def run(args: argparse.Namespace) -> int:
    """Open every stored case."""
    from nndet_psma.core.errors import UserError
    from nndet_psma.preprocess.store import read_case

    if not args.path.is_dir():
        raise UserError("folder does not exist", file=args.path, remedy="Run nndet_prep first")
    names = sorted(
        path.name for path in args.path.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if not names:
        raise UserError("holds no preprocessed cases", file=args.path, remedy="Run nndet_prep first")
    for name in names:
        read_case(args.path, name)
    say(f"{len(names)} cases are whole and memory-mapped; nothing has to be unpacked")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
