"""``nndet_sweep``: tune the thresholds of a trained fold on its validation cases."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nndet_psma.cli.arguments import add_model, add_overwrites, add_task, say

if TYPE_CHECKING:
    from nndet_psma.artifacts.inference_plan import InferencePlan


def build_parser() -> argparse.ArgumentParser:
    """Arguments of nnDetection's command, and overrides (sweep.criterion)."""
    parser = argparse.ArgumentParser(
        prog="nndet_sweep", description="Tune thresholds on validation predictions."
    )
    add_task(parser)
    add_model(parser)
    parser.add_argument("fold", type=int, help="fold")
    add_overwrites(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Predict the validation cases, tune, print."""
    from nndet_psma.artifacts.model_folder import find_model
    from nndet_psma.cli.config import config_for_model
    from nndet_psma.dataset.task.paths import find_task
    from nndet_psma.stages.sweep import sweep_fold

    paths = find_task(args.task)
    folder = find_model(args.task, args.model)
    config = config_for_model(paths.name, folder.plan(args.fold), args.overwrites)
    report_thresholds(sweep_fold(paths, folder, args.fold, config, say))
    return 0


def report_thresholds(plan: InferencePlan) -> None:
    """Print the chosen thresholds and where they come from."""
    from nndet_psma.postproc.steps.settings import DEFAULT_STEPS

    told = {name: value for name, value in plan.settings.items() if name not in ("steps", "options")}
    chosen = ", ".join(f"{name} {'off' if value is None else value}" for name, value in told.items())
    steps = plan.settings.get("steps", DEFAULT_STEPS)
    if tuple(steps) != DEFAULT_STEPS:
        chosen += f"; steps {', '.join(steps)}"
    for name, value in plan.settings.get("options", {}).items():
        chosen += f", {name} {value}"
    say(f"thresholds: {chosen}")
    if plan.value is None:
        say(f"source: {plan.source}")
        return
    say(f"source: {plan.source}; {plan.criterion} {plan.value:.3f} on the cases they were tuned on")
    if plan.value < 0:
        say(f"warning: no setting reaches the limit of {plan.criterion}; the nearest one was taken")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
