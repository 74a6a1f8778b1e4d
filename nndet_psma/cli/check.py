"""``nndet_psma check``: everything that is wrong with a raw task, in one table."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nndet_psma.core.terminal import safe_console

if TYPE_CHECKING:
    from rich.console import Console

    from nndet_psma.dataset.faults.findings import CheckReport, Finding


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="nndet_psma check", description="Check a raw task; exit code 1 when there are errors."
    )
    parser.add_argument("task", nargs="?", help="number, name or folder name of the task, e.g. 100")
    parser.add_argument(
        "--full", action="store_true", help="read all voxels, not only names, headers and JSON"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report to FILE")
    parser.add_argument("--kinds", action="store_true", help="list every kind of fault and stop")
    parser.add_argument(
        "--num_processes",
        type=int,
        default=min(4, os.cpu_count() or 1),
        help="cases checked at the same time (default %(default)s)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Check, print, and return 1 when there are errors.

    Raises:
        UserError: no task was named, or there is none of that name.
    """
    if args.kinds:
        _show_kinds()
        return 0
    from nndet_psma.core.atomic import write_json
    from nndet_psma.core.errors import UserError
    from nndet_psma.dataset.checks.checks import check_report
    from nndet_psma.dataset.task.paths import find_task

    if args.task is None:
        raise UserError("no task was named", remedy="Say nndet_psma check 100, or --kinds for the catalogue")
    paths = find_task(args.task)
    # starting workers costs more than reading a few headers
    processes = args.num_processes if args.full else 1
    report = check_report(paths, full=args.full, num_processes=processes)
    if args.json is not None:
        write_json(args.json, report.to_json(paths.root))
    _show(report, paths.root)
    return int(report.errors > 0)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)


def _show(report: CheckReport, root: Path) -> None:
    console = safe_console(sys.stdout)
    if not report.findings:
        console.print(f"{report.task}: nothing to complain about", highlight=False)
    for severity in ("error", "warning"):
        group = [finding for finding in report.findings if finding.severity == severity]
        if group:
            _show_group(console, f"{report.task}: {len(group)} {severity}s", group, root)
    if report.findings:
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.counts().items())
        warnings = len(report.findings) - report.errors
        console.print(f"{report.errors} errors, {warnings} warnings: {kinds}", highlight=False)
    console.print(_size(report), highlight=False)


def _show_group(console: Console, title: str, findings: Sequence[Finding], root: Path) -> None:
    from rich import markup
    from rich.table import Table

    from nndet_psma.core.terminal import printable

    def escape(text: str) -> str:
        return markup.escape(printable(text))

    table = Table(title=escape(title), show_lines=True)
    table.add_column("file", overflow="fold", ratio=2)
    table.add_column("what", ratio=3)
    table.add_column("how to mend it", ratio=2)
    for finding in findings:
        what = f"[bold]{escape(finding.kind)}[/bold]\n{escape(finding.what)}"
        what += f"; expected {escape(finding.expected)}" if finding.expected else ""
        what += f"; found {escape(finding.found)}" if finding.found else ""
        file = (finding.file or "").removeprefix(f"{root}/")
        table.add_row(escape(file), what, escape(finding.remedy or ""))
    console.print(table)


def _size(report: CheckReport) -> str:
    """One line about what was looked at."""
    none = len(report.cases_without_lesions)
    only_predicted = not report.training_cases and report.test_cases and not report.errors
    return ("a task to predict only: " if only_predicted else "") + (
        f"{report.training_cases} training and {report.test_cases} test cases, {report.lesions} lesions, "
        f"{none} cases without lesions; "
        + ("all voxels were read" if report.full else "voxels were not read (--full reads them)")
    )


def _show_kinds() -> None:
    from rich.table import Table

    from nndet_psma.dataset.faults.kinds import KINDS

    table = Table("kind", "where", "severity", "needs", "meaning", title=f"{len(KINDS)} kinds of faults")
    for kind in KINDS.values():
        table.add_row(kind.name, kind.group, kind.severity, "--full" if kind.full else "", kind.meaning)
    safe_console(sys.stdout).print(table)
