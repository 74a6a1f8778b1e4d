"""``nndet_eval``: score predictions against labels."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nndet_psma.cli.arguments import add_model, add_task, console, say

if TYPE_CHECKING:
    from nndet_psma.stages.evaluate import Evaluation


def build_parser() -> argparse.ArgumentParser:
    """Arguments of nnDetection's command."""
    parser = argparse.ArgumentParser(
        prog="nndet_eval", description="Score predictions; -1 is the consolidated model."
    )
    add_task(parser)
    add_model(parser)
    parser.add_argument("fold", type=int, help="fold, -1 for the consolidated model")
    parser.add_argument(
        "--test", action="store_true", help="test predictions instead of validation predictions"
    )
    parser.add_argument("--boxes", action="store_true", help="print box scores (also when nothing is chosen)")
    parser.add_argument("--case", action="store_true", help="print case scores")
    parser.add_argument(
        "--analyze_boxes", action="store_true", help="print operating points and the ablation"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default %(default)s)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Score, write the files, print what was asked for."""
    from nndet_psma.dataset.paths import find_task
    from nndet_psma.inference.model_folder import find_model
    from nndet_psma.stages.evaluate import evaluate

    paths = find_task(args.task)
    evaluation = evaluate(paths, find_model(args.task, args.model), args.fold, test=args.test, seed=args.seed)
    if args.boxes or not (args.case or args.analyze_boxes):
        _print_scores(evaluation)
    if args.case:
        _print_cases(evaluation)
    if args.analyze_boxes:
        _print_operating_points(evaluation)
        print_ablation(evaluation)
    say(f"written to {evaluation.folder}")
    return 0


def _print_scores(evaluation: Evaluation) -> None:
    from rich.table import Table

    from nndet_psma.stages.evaluate import summary_rows

    scores = evaluation.scores
    title = f"{scores.num_cases} cases, {scores.num_patients} patients, {scores.num_lesions} lesions"
    table = Table("score", "value", "95 % interval (patients)", title=title)
    for row in summary_rows(evaluation):
        table.add_row(*row)
    console().print(table)


def _print_cases(evaluation: Evaluation) -> None:
    for name, value in evaluation.cases.items():
        say(f"{name}: {'undefined' if value is None else f'{value:.3f}'}")


def _print_operating_points(evaluation: Evaluation) -> None:
    from rich.table import Table

    table = Table("score from", "sensitivity", "PPV", "F1", "FP per case", title="operating points, IoU 0.1")
    for row in evaluation.scores.operating_points:
        point = row.point
        values = (point.sensitivity, point.ppv, point.f1, point.fp_per_case)
        table.add_row(f"{point.threshold:.2f}", *("-" if v is None else f"{v:.3f}" for v in values))
    console().print(table)


def print_ablation(evaluation: Evaluation) -> None:
    """The ablation as a table."""
    from rich.table import Table

    from nndet_psma.inference.ablation import COLUMNS

    table = Table("voters", "filters", "bagging", *COLUMNS, title="ablation")
    for row in evaluation.ablation:
        values = [row.scores[name].value for name in COLUMNS]
        cells = ["-" if value is None else f"{value:.3f}" for value in values]
        table.add_row(row.voters, "yes" if row.filters else "", "yes" if row.bagging else "", *cells)
    console().print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
