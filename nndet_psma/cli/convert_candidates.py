"""``nndet_psma convert candidates``: what a detector has found, as a task for a second stage."""

from __future__ import annotations

import argparse
from pathlib import Path

from nndet_psma.cli.arguments import add_model, add_task, say


def add_candidates_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the sub-command."""
    parser.description = (
        "Make a task of lesions and false alarms from the candidates of a detector, each of the fold that has not seen "
        "the patient. Train nodestatus on it, then give its model to nndet_predict --status."
    )
    add_task(parser)
    add_model(parser)
    parser.add_argument("--to", type=int, required=True, metavar="N", help="number of the new task")
    parser.add_argument("--name", default="Candidates", help="name of the new task (default %(default)s)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder of all tasks (default $det_data)")


def convert_candidates(args: argparse.Namespace) -> int:
    """Convert and say what was written."""
    from nndet_psma.artifacts.model_folder import find_model
    from nndet_psma.cli.convert_dicom import check_task_name
    from nndet_psma.dataset.task.paths import TaskPaths, data_root, find_task
    from nndet_psma.stages.candidates import write_candidate_task

    check_task_name(args.to, args.name)
    root = data_root() if args.output is None else args.output
    target = TaskPaths(root / f"Task{args.to:03d}_{args.name}")
    write_candidate_task(find_task(args.task), find_model(args.task, args.model), target, say)
    say(f"{target.root}. Next: nndet_prep {args.to} -o train=nodestatus plan_cfg.sampling=status")
    return 0
