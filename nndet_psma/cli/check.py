"""``nndet_psma check``: everything that is wrong with a raw task, in one table."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nndet_psma.dataset.findings import Finding


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="nndet_psma check", description="Check a raw task; exit code 1 when there are errors."
    )
    parser.add_argument("task", help="number, name or folder name of the task, e.g. 100")
    parser.add_argument(
        "--full", action="store_true", help="read all voxels, not only names, headers and JSON"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the findings to FILE")
    parser.add_argument(
        "--num_processes",
        type=int,
        default=min(4, os.cpu_count() or 1),
        help="cases checked at the same time (default %(default)s)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Check, print, and return 1 when there are errors."""
    from nndet_psma.core.atomic import write_json
    from nndet_psma.core.schema import to_plain
    from nndet_psma.dataset.checks import check_task
    from nndet_psma.dataset.paths import find_task

    paths = find_task(args.task)
    # starting workers costs more than reading a few headers
    processes = args.num_processes if args.full else 1
    findings = check_task(paths, full=args.full, num_processes=processes)
    if args.json is not None:
        write_json(args.json, to_plain(findings))
    _show(findings, paths.name, paths.root)
    return int(any(finding.severity == "error" for finding in findings))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)


def _show(findings: Sequence[Finding], name: str, root: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if not findings:
        console.print(f"{name}: nothing to complain about")
        return
    table = Table("", "file", "what", "how to mend it", title=name)
    for finding in findings:
        what = finding.what
        what += f"; expected {finding.expected}" if finding.expected else ""
        what += f"; found {finding.found}" if finding.found else ""
        file = (finding.file or "").removeprefix(f"{root}/")
        table.add_row(*(escape(cell) for cell in (finding.severity, file, what, finding.remedy or "")))
    console.print(table)
    errors = sum(finding.severity == "error" for finding in findings)
    console.print(f"{errors} errors, {len(findings) - errors} warnings")
