"""``nndet_prep``: check, fingerprint, plan and preprocess a task."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nndet_psma.cli.arguments import add_overwrites, say

if TYPE_CHECKING:
    from nndet_psma.artifacts.plan import Plan
    from nndet_psma.systems.system import AnySystem


def build_parser() -> argparse.ArgumentParser:
    """Arguments of nnDetection's command, and the target machine."""
    parser = argparse.ArgumentParser(
        prog="nndet_prep", description="Check, fingerprint, plan and preprocess one or more tasks."
    )
    parser.add_argument("tasks", nargs="+", help="number, name or folder name of each task")
    add_overwrites(parser)
    parser.add_argument("--full_check", action="store_true", help="read every voxel for the check")
    parser.add_argument("--no_check", action="store_true", help="skip the check")
    parser.add_argument(
        "--gpu_memory_gb", type=float, help="plan for a GPU of this size (none is needed now)"
    )
    parser.add_argument("--num_gpus", type=int, help="GPUs of that size that train together (default 1)")
    parser.add_argument(
        "-np", "--num_processes", type=int, default=2, help="processes for check and fingerprint"
    )
    parser.add_argument(
        "-npp", "--num_processes_preprocessing", type=int, default=2, help="for preprocessing"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Prepare every task and print what was decided and why."""
    from nndet_psma.cli.config import config_for_task, system_of_config
    from nndet_psma.cli.plan import print_plan
    from nndet_psma.dataset.task.paths import find_task
    from nndet_psma.stages.prep import prepare_task

    overrides = list(args.overwrites)
    if args.gpu_memory_gb is not None:
        overrides += ["plan_cfg.target=gpu", f"plan_cfg.gpu_memory_gb={args.gpu_memory_gb}"]
    if args.num_gpus is not None:
        overrides += ["plan_cfg.target=gpu", f"plan_cfg.num_gpus={args.num_gpus}"]
    for task in args.tasks:
        paths = find_task(task)
        config = config_for_task(paths, overrides, say)
        prepared = prepare_task(
            paths,
            system_of_config(config),
            config,
            full_check=args.full_check,
            check=not args.no_check,
            processes=args.num_processes,
            preprocessing_processes=args.num_processes_preprocessing,
            say=say,
        )
        print_plan(prepared.plan)
        say(_next_step(task, overrides, prepared.plan, system_of_config(config)))
    return 0


def _next_step(task: str, overrides: Sequence[str], plan: Plan, system: AnySystem) -> str:
    """The training command, with what the planner expects it to cost where it does."""
    chosen = [text for text in overrides if text.startswith(("train=", "plan="))]
    cost = next((value for key, value, *_ in system.facts(plan).cost if key == "cost.total"), None)
    folds = f"{len(plan.folds)} folds"
    about = f" ({folds}, estimated {cost})" if cost else f" ({folds})"
    return f"Next: nndet_train {task} -o {' '.join([*chosen, 'exp.fold=all'])}{about}"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
