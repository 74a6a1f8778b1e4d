"""``nndet_psma report``: one HTML page of everything."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nndet_psma.cli.arguments import add_model, add_task, add_trust, say

if TYPE_CHECKING:
    from nndet_psma.dataset.task.paths import TaskPaths


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="nndet_psma report",
        description="Write one self-contained HTML page: scores, plan, training, thresholds, cases in pictures.",
    )
    add_task(parser)
    add_model(parser)
    add_trust(parser)
    parser.add_argument(
        "--fold", type=int, default=-1, help="fold, -1 for the consolidated model (default %(default)s)"
    )
    split = parser.add_mutually_exclusive_group()
    split.add_argument("--test", action="store_true", help="test predictions (default where they are scored)")
    split.add_argument("--val", action="store_true", help="validation predictions")
    parser.add_argument(
        "--output",
        type=Path,
        help="file to write (default report.html in the model folder, report_fold0_val.html and so on)",
    )
    parser.add_argument(
        "--max_cases", type=_count, default=12, help="cases shown in pictures (default %(default)s)"
    )
    parser.add_argument(
        "--worst",
        type=_count,
        default=4,
        help="missed lesions and false alarms shown in pictures, each (default %(default)s)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the page and say where it lies."""
    from nndet_psma.artifacts.model_folder import find_model
    from nndet_psma.stages.report import ReportJob, write_report

    test = None if args.test == args.val else bool(args.test)
    job = ReportJob(
        find_model(args.task, args.model), args.fold, test, args.output, args.max_cases, args.worst
    )
    file = write_report(_task_data(job.folder.root.parent.name), job)
    say(f"{file} ({file.stat().st_size / 1e6:.1f} MB)")
    return 0


def _task_data(task: str) -> TaskPaths | None:
    """The task's data; a model may be reported where they are not."""
    from nndet_psma.core.errors import UserError
    from nndet_psma.dataset.task.paths import find_task

    try:
        return find_task(task)
    except UserError:
        return None


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, found {text}")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
