"""``nndet_psma agreement``: readers and models on the same patients; one JSON object on standard output."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="nndet_psma agreement",
        description="Agreement of readers (Cohen's kappa) or of two measurements (Pearson, Bland-Altman).",
    )
    parser.add_argument("table", type=Path, metavar="FILE", help="CSV, one row per patient or node")
    parser.add_argument(
        "--readers",
        nargs="+",
        metavar="COLUMN",
        help="categories, for example N0 and N1; kappa of every pair",
    )
    parser.add_argument(
        "--order", nargs="+", metavar="CATEGORY", help="all categories (default: those that occur)"
    )
    parser.add_argument("--sizes", nargs=2, metavar="COLUMN", help="two columns of numbers in the same unit")
    return parser


def run(args: argparse.Namespace) -> int:
    """Compute and print."""
    from nndet_psma.core.errors import UserError
    from nndet_psma.stages.agreement import score_readers, score_sizes

    if args.readers is None and args.sizes is None:
        raise UserError("nothing to compare", expected="--readers or --sizes")
    result: dict[str, Any] = {}
    if args.readers is not None:
        result |= score_readers(args.table, args.readers, order=args.order)
    if args.sizes is not None:
        result |= score_sizes(args.table, *args.sizes)
    print(json.dumps(result, indent=2, allow_nan=False))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
