"""``nndet_psma plan show|diff|check``: a plan's decisions, what differs between two, whether one holds together."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nndet_psma.cli.arguments import add_task, console, say

if TYPE_CHECKING:
    from nndet_psma.artifacts.plan import Plan
    from nndet_psma.dataset.task.paths import TaskPaths


def build_parser() -> argparse.ArgumentParser:
    """Sub-commands ``show``, ``diff`` and ``check``."""
    parser = argparse.ArgumentParser(prog="nndet_psma plan", description="Look at plans.")
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="print every decision, its rule and its evidence")
    diff = commands.add_parser("diff", help="print what differs between two plans, and why")
    check = commands.add_parser("check", help="find contradictions in a plan that was edited by hand")
    for command in (show, diff, check):
        add_task(command)
    named = "name of a plan of the task, or a file"
    for command in (show, check):
        command.add_argument(
            "plan",
            nargs="?",
            help=f"{named} (default: that of the system which suits the task, or the only one)",
        )
    diff.add_argument("first", help=named)
    diff.add_argument("second", help=named)
    return parser


def run(args: argparse.Namespace) -> int:
    """Print what is asked for."""
    from nndet_psma.artifacts.plan_file import read_plan
    from nndet_psma.dataset.task.paths import find_task

    paths = find_task(args.task)
    if args.command == "diff":
        print_differences(read_plan(plan_file(paths, args.first)), read_plan(plan_file(paths, args.second)))
    elif args.command == "check":
        _check(paths, plan_file(paths, args.plan))
    else:
        plan = read_plan(plan_file(paths, args.plan))
        print_plan(plan)
        print_cost(plan, paths)
    return 0


def print_plan(plan: Plan) -> None:
    """Table of the plan's decisions on standard output."""
    from rich.markup import escape
    from rich.table import Table

    from nndet_psma.planners.describe import describe_plan

    table = Table("decision", "value", "rule", "evidence", title=f"{plan.task}: plan {plan.plan_id}")
    for row in describe_plan(plan):
        table.add_row(*(escape(cell) for cell in row))
    console().print(table)


def print_cost(plan: Plan, paths: TaskPaths) -> None:
    """Table of the estimated hours and memory; what training took stands beside it once there is a model.

    Nothing where the system estimates none.
    """
    from rich.markup import escape
    from rich.table import Table

    from nndet_psma.report.training_cost import compared_rows, true_cost
    from nndet_psma.systems.system import system_of

    facts = system_of(plan).facts(plan)
    if facts.cost_note:
        say(f"cost: {facts.cost_note}")
    if not facts.cost:
        return
    folds = sorted((_models(paths) / f"{plan.trainer}_{plan.plan_id}").glob("fold*"))
    measured = true_cost(folds)
    table = Table(
        "cost", "estimate", *(["measured"] if measured.stages else []), "rule", "evidence", title="cost"
    )
    rows = (
        compared_rows(facts.cost, measured, facts.trainings * len(plan.folds))
        if measured.stages
        else facts.cost
    )
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console().print(table)


def _models(paths: TaskPaths) -> Path:
    """Folder of the task's models; one that does not exist where $det_models is not set."""
    import os

    from nndet_psma.dataset.task.paths import MODELS_VARIABLE

    return Path(os.environ.get(MODELS_VARIABLE, "")).expanduser() / paths.name


def print_differences(first: Plan, second: Plan) -> None:
    """Table of the keys whose values differ, with the evidence behind each value."""
    from rich.markup import escape
    from rich.table import Table

    from nndet_psma.planners.describe import compare_plans

    names = [first.plan_id, second.plan_id]
    if names[0] == names[1]:
        names = [f"{names[0]} (first)", f"{names[1]} (second)"]
    rows = compare_plans(first, second)
    if not rows:
        say("the plans do not differ")
        return
    table = Table("key", *names, "why", title=f"{first.task}: {len(rows)} differences")
    for row in rows:
        why = row.first_evidence
        if row.second_evidence != row.first_evidence:
            why = f"{row.first_evidence or 'no reason given'} | {row.second_evidence or 'no reason given'}"
        table.add_row(*(escape(cell) for cell in (row.key, row.first, row.second, why)))
    console().print(table)


def _check(paths: TaskPaths, file: Path) -> None:
    from nndet_psma.dataset.task.description import read_description
    from nndet_psma.stages.prep import check_plan_file

    plan = check_plan_file(paths, file, read_description(paths.root))
    say(f"plan {plan.plan_id} holds together and fits the task")


def plan_file(paths: TaskPaths, plan: str | None) -> Path:
    """A plan of the task by name, or any plan by its path; UserError lists the plans on a miss.

    None is the only plan of the task, or that of the system which suits it.
    """
    from nndet_psma.core.errors import UserError
    from nndet_psma.dataset.task.description import read_description
    from nndet_psma.systems.choice import default_system
    from nndet_psma.systems.system import SYSTEMS

    if plan is None:
        known = _plans(paths)
        suited = SYSTEMS[default_system(read_description(paths.root)).name]
        plan = known[0] if len(known) == 1 else suited.plan_id
    file = Path(plan) if plan.endswith(".json") else paths.plan(plan)
    if not file.is_file():
        raise UserError(
            f"no plan '{plan}'",
            file=file,
            found=", ".join(_plans(paths)) or "none",
            remedy="Run nndet_prep, with the same -o train= where one is given",
        )
    return file


def _plans(paths: TaskPaths) -> list[str]:
    """Names of the task's plans: the artefacts of the preprocessed folder that say they are one."""
    from nndet_psma.artifacts.plan_file import plan_type_of
    from nndet_psma.core.atomic import read_json

    files = sorted(paths.preprocessed.glob("*.json"))
    return [file.stem for file in files if plan_type_of(read_json(file)) is not None]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
