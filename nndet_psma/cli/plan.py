"""``nndet_psma plan show``: every decision of a plan with its rule and evidence."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nndet_psma.cli.arguments import add_task, console

if TYPE_CHECKING:
    from nndet_psma.artifacts.plan import Plan


def build_parser() -> argparse.ArgumentParser:
    """Sub-command ``show``."""
    parser = argparse.ArgumentParser(prog="nndet_psma plan", description="Look at plans.")
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="print every decision, its rule and its evidence")
    add_task(show)
    show.add_argument("plan", nargs="?", default="PSMA25D", help="name of the plan (default %(default)s)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the plan."""
    from nndet_psma.artifacts.plan import Plan
    from nndet_psma.dataset.paths import find_task

    print_plan(Plan.read(find_task(args.task).plan(args.plan)))
    return 0


def print_plan(plan: Plan) -> None:
    """Table of the plan's decisions on standard output."""
    from rich.markup import escape
    from rich.table import Table

    from nndet_psma.stages.prep import describe_plan

    output = console()
    table = Table("decision", "value", "rule", "evidence", title=f"{plan.task}: plan {plan.plan_id}")
    for row in describe_plan(plan):
        table.add_row(*(escape(cell) for cell in row))
    output.print(table)
    folds = ", ".join(f"{len(fold.train)}/{len(fold.val)}" for fold in plan.folds)
    output.print(f"folds (train/validation cases): {folds}; machine: {plan.target.device}", highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
