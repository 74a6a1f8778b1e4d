"""``nndet_consolidate``: folds into one self-contained model, thresholds tuned on all validation cases."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nndet_psma.cli.arguments import add_model, add_overwrites, add_task, say

CHECKPOINT = "model"


def build_parser() -> argparse.ArgumentParser:
    """Arguments of nnDetection's command that apply here, and ``--folds`` for any subset."""
    parser = argparse.ArgumentParser(prog="nndet_consolidate", description="Combine the folds of a model.")
    add_task(parser)
    add_model(parser)
    add_overwrites(parser)
    parser.add_argument("--num_folds", type=int, help="folds 0 to N-1 (default: every trained fold)")
    parser.add_argument("--folds", type=int, nargs="+", help="these folds")
    parser.add_argument("--sweep_boxes", action="store_true", help="tune thresholds on all validation cases")
    parser.add_argument(
        "-c", "--ckpt", default=CHECKPOINT, help=f"weights to take: only '{CHECKPOINT}' is kept"
    )
    parser.add_argument(
        "--no_model",
        action="store_true",
        help="leave the weights where they are: tune and evaluate, not predict",
    )
    parser.add_argument(
        "--sweep_instances", action="store_true", help="nnDetection's; refused, only boxes are tuned"
    )
    return parser


def refuse_unknown(args: argparse.Namespace) -> None:
    """Refuse what nnDetection offers and this model has not."""
    from nndet_psma.core.errors import UserError

    if args.ckpt != CHECKPOINT:
        raise UserError(
            f"checkpoint '{args.ckpt}' asked for",
            expected=f"'{CHECKPOINT}'",
            remedy="Leave -c out; which weights a stage keeps as model.safetensors is chosen in training "
            "(trainer_cfg.select=last or best)",
        )
    if args.sweep_instances:
        raise UserError(
            "--sweep_instances: only boxes are tuned, no instance masks", remedy="Use --sweep_boxes"
        )
    if args.no_model and not args.sweep_boxes:
        raise UserError(
            "--no_model without --sweep_boxes leaves nothing to do",
            remedy="Add --sweep_boxes, or leave --no_model out",
        )


def run(args: argparse.Namespace) -> int:
    """Consolidate."""
    from nndet_psma.artifacts.model_folder import find_model
    from nndet_psma.cli.config import config_for_model
    from nndet_psma.cli.sweep import report_thresholds
    from nndet_psma.core.errors import UserError
    from nndet_psma.dataset.task.paths import find_task
    from nndet_psma.stages.sweep import consolidate

    refuse_unknown(args)
    paths = find_task(args.task)
    folder = find_model(args.task, args.model)
    folds = args.folds or (list(range(args.num_folds)) if args.num_folds else folder.trained_folds())
    missing = [fold for fold in folds if fold not in folder.trained_folds()]
    if missing or not folds:
        raise UserError(
            f"fold {missing[0]} is not trained" if missing else "no fold is trained",
            file=folder.root,
            found=f"trained folds {folder.trained_folds()}",
            remedy="Train it, or choose folds with --folds",
        )
    config = config_for_model(paths.name, folder.plan(folds[0]), args.overwrites)
    plan = consolidate(
        paths,
        folder,
        folds,
        config=config,
        sweep_boxes=args.sweep_boxes,
        weights=not args.no_model,
        say=say,
    )
    say(f"consolidated folds {folds} into {folder.fold(-1)}")
    report_thresholds(plan)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
