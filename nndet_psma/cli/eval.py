"""``nndet_eval``: score predictions against labels."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nndet_psma.cli.arguments import add_model, add_task, add_trust, say

_REFUSED = "boxes are scored here; masks by nndet_psma score-seg"


def build_parser() -> argparse.ArgumentParser:
    """Arguments of nnDetection's command."""
    parser = argparse.ArgumentParser(
        prog="nndet_eval", description="Score predictions; -1 is the consolidated model."
    )
    add_task(parser)
    add_model(parser)
    add_trust(parser)
    parser.add_argument("fold", type=int, help="fold, -1 for the consolidated model")
    parser.add_argument(
        "--test", action="store_true", help="test predictions instead of validation predictions"
    )
    parser.add_argument("--boxes", action="store_true", help="print box scores (also when nothing is chosen)")
    parser.add_argument("--case", action="store_true", help="print case scores")
    parser.add_argument(
        "--analyze_boxes", action="store_true", help="print operating points and the ablation"
    )
    parser.add_argument(
        "--compare",
        metavar="OTHER_MODEL",
        help="difference of every score to this model of the same task, with paired intervals over patients",
    )
    for name in ("--seg", "--instances"):
        parser.add_argument(name, action="store_true", help=f"refused: {_REFUSED}")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default %(default)s)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Score, write the files, print what was asked for.

    Raises:
        UserError: masks were to be scored, a model is missing, there is nothing to score, or what was asked for does
            not fit the results of the model.
    """
    from nndet_psma.core.errors import UserError

    for name in ("seg", "instances"):
        if getattr(args, name):
            raise UserError(f"--{name} has nothing to score: {_REFUSED}", remedy="Use --boxes or --case")
    from nndet_psma.artifacts.model_folder import find_model
    from nndet_psma.cli.eval_boxes import print_boxes
    from nndet_psma.cli.eval_judged import print_judged, refuse_boxes
    from nndet_psma.dataset.task.paths import find_task
    from nndet_psma.stages.evaluate import evaluate
    from nndet_psma.stages.evaluate_boxes import BoxEvaluation
    from nndet_psma.systems.system import model_system

    paths = find_task(args.task)
    folder = find_model(args.task, args.model)
    refuse_boxes(args, model_system(folder, args.fold)[0].result_type)
    other = None if args.compare is None else find_model(args.task, args.compare)
    evaluation = evaluate(paths, folder, args.fold, test=args.test, seed=args.seed, compare=other)
    if isinstance(evaluation, BoxEvaluation):
        print_boxes(args, evaluation)
    else:
        print_judged(evaluation)
    say(f"written to {evaluation.folder}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
