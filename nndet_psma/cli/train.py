"""``nndet_train``: train a fold (all its stages and voters), optionally tune its thresholds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nndet_psma.cli.arguments import add_overwrites, add_task, say

if TYPE_CHECKING:
    from nndet_psma.artifacts.model_folder import ModelFolder


def build_parser() -> argparse.ArgumentParser:
    """Arguments of nnDetection's command."""
    parser = argparse.ArgumentParser(
        prog="nndet_train",
        description="Train a fold: -o exp.fold=0 (or all). Starting the same command again goes on where it stopped.",
    )
    add_task(parser)
    add_overwrites(parser)
    parser.add_argument("--sweep", action="store_true", help="tune thresholds on the fold's validation cases")
    return parser


def run(args: argparse.Namespace) -> int:
    """Train, and sweep if asked."""
    from nndet_psma.artifacts.plan_file import read_plan
    from nndet_psma.cli.config import config_for_task
    from nndet_psma.cli.plan import plan_file
    from nndet_psma.cli.sweep import report_thresholds
    from nndet_psma.dataset.task.paths import find_task, models_root
    from nndet_psma.stages.sweep import sweep_fold
    from nndet_psma.stages.train import folds_to_train, train_fold
    from nndet_psma.trainers.distributed import is_main

    main = is_main()
    tell = say if main else lambda text: None  # under a launcher one process speaks for all
    paths = find_task(args.task)
    config = config_for_task(paths, args.overwrites, tell)
    plan = read_plan(plan_file(paths, config.plan))
    for fold in folds_to_train(config, plan):
        tell(f"fold {fold}: training {config.exp.id}")
        folder = train_fold(paths, models_root(), config, fold, tell)
        tell(f"fold {fold}: trained, weights in {folder.fold(fold)}")
        if args.sweep and main:
            report_thresholds(sweep_fold(paths, folder, fold, config, tell))
    tell(_next_step(args, folder, len(plan.folds)))
    return 0


def _next_step(args: argparse.Namespace, folder: ModelFolder, folds: int) -> str:
    """The fold that is still to be trained, or the command that joins them."""
    left = sorted(set(range(folds)) - set(folder.trained_folds()))
    if left:
        others = [text for text in args.overwrites if not text.startswith("exp.fold=")]
        return f"Next: nndet_train {args.task} -o {' '.join([*others, f'exp.fold={left[0]}'])}"
    return f"Next: nndet_consolidate {args.task} {folder.root.name} --sweep_boxes"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
