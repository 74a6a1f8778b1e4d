"""``nndet_train``: train a fold (all its stages and voters), optionally tune its thresholds."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from nndet_psma.cli.arguments import add_overwrites, add_task, say

if TYPE_CHECKING:
    from nndet_psma.artifacts.model_folder import ModelFolder
    from nndet_psma.artifacts.plan import Plan
    from nndet_psma.dataset.task.paths import TaskPaths


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
    from nndet_psma.cli.config import config_for_task
    from nndet_psma.cli.plan import plan_file
    from nndet_psma.cli.sweep import report_thresholds
    from nndet_psma.dataset.task.paths import find_task
    from nndet_psma.stages.sweep import sweep_fold
    from nndet_psma.stages.train import folds_to_train
    from nndet_psma.systems.nodeseg.plan import read_plan
    from nndet_psma.trainers.distributed import is_main

    main = is_main()
    tell = say if main else lambda text: None  # under a launcher one process speaks for all
    paths = find_task(args.task)
    config = config_for_task(paths, args.overwrites, tell)
    plan = read_plan(plan_file(paths, str(config.plan)))
    for fold in folds_to_train(config, cast("Plan", plan)):  # asks for the folds only
        tell(f"fold {fold}: training {config.exp.id}")
        folder = _trained(paths, config, fold, tell)
        tell(f"fold {fold}: trained, weights in {folder.fold(fold)}")
        if args.sweep and main:
            report_thresholds(sweep_fold(paths, folder, fold, config, tell))
    return 0


def _trained(paths: TaskPaths, config: Any, fold: int, tell: Callable[[str], None]) -> ModelFolder:
    """The model folder, with this fold trained by the engine of the system."""
    from nndet_psma.cli.config import NNUNET
    from nndet_psma.dataset.task.paths import models_root

    if config.host == NNUNET:
        from nndet_psma.systems.nodeseg.system import train_segmentation

        return train_segmentation(paths, models_root(), config, fold, tell)
    from nndet_psma.stages.train import train_fold

    return train_fold(paths, models_root(), config, fold)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
