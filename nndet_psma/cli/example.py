"""``nndet_example``: write a synthetic raw task (nnDetection's command of the same name, with a pelvis in it)."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

# Kept here as well as in the generator, which imports scipy: --help has to answer at once. A test compares them.
KIND_NAMES = ("psma",)
DIFFICULTIES = ("easy", "medium", "hard")
DEFAULT_SIZE = (36, 144, 192)
DEFAULT_SPACING = (4.0, 2.0, 2.0)
DEFAULT_CASES = (24, 8)
FULL_CASES = (100, 30)


def build_parser() -> argparse.ArgumentParser:
    """Arguments of ``nndet_example``; ``--full`` and ``--num_processes`` are nnDetection's."""
    parser = argparse.ArgumentParser(
        prog="nndet_example",
        description="Write a synthetic raw task: contrast-enhanced CT of male pelves, nodal CTV, positive nodes.",
    )
    parser.add_argument(
        "--full", action="store_true", help=f"{FULL_CASES[0]} training and {FULL_CASES[1]} test cases"
    )
    parser.add_argument(
        "--num_processes", type=int, default=1, metavar="N", help="cases drawn at a time (default 1)"
    )
    _add_task_arguments(parser)
    _add_phantom_arguments(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the task; returns the exit code 0.

    Raises:
        UserError: no destination, a name no task folder can have, a number out of range, or the folder is taken.
    """
    from nndet_psma.core.progress import progress_bar
    from nndet_psma.dataset.phantom.options import PhantomOptions
    from nndet_psma.dataset.phantom.task import generate_task

    options = PhantomOptions(
        size=args.size,
        spacing=args.spacing,
        difficulty=args.difficulty,
        positives=args.positives,
        noise=args.noise,
        oblique=args.oblique,
        flip=args.flip,
        table=args.table,
    )
    destination = _find_destination(args)
    cases, test_cases = _count_cases(args)
    finished: list[str] = []
    with progress_bar("Drawing cases", cases + test_cases) as advance:

        def report(case_id: str) -> None:
            finished.append(case_id)
            advance(len(finished), case_id)

        generate_task(
            destination,
            kind=args.kind,
            cases=cases,
            test_cases=test_cases,
            seed=args.seed,
            options=options,
            force=args.force,
            processes=args.num_processes,
            on_case=report,
        )
    sys.stdout.write(f"{destination}: {cases} training and {test_cases} test cases\n")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)


def _add_task_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("task")
    group.add_argument("--kind", choices=KIND_NAMES, default="psma", help="what to draw (default psma)")
    group.add_argument("--cases", type=int, metavar="N", help=f"training cases (default {DEFAULT_CASES[0]})")
    group.add_argument("--test-cases", type=int, metavar="N", help=f"test cases (default {DEFAULT_CASES[1]})")
    group.add_argument("--seed", type=int, default=0, help="same seed, same voxels (default 0)")
    group.add_argument("--task", type=int, default=100, metavar="ID", help="task number (default 100)")
    group.add_argument("--name", default="PSMAPhantom", help="task name (default PSMAPhantom)")
    group.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        help="folder the task folder goes to (default $det_data)",
    )
    group.add_argument(
        "--force",
        action="store_true",
        help="replace raw_splitted, dataset.json and clinical.csv of a task folder that holds something else",
    )


def _add_phantom_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("phantom")
    group.add_argument(
        "--size",
        type=_three_integers,
        default=DEFAULT_SIZE,
        metavar="'Z Y X'",
        help="voxels (default '36 144 192')",
    )
    group.add_argument(
        "--spacing",
        type=_three_numbers,
        default=DEFAULT_SPACING,
        metavar="'Z Y X'",
        help="voxel size, mm (default '4.0 2.0 2.0')",
    )
    group.add_argument(
        "--difficulty",
        choices=DIFFICULTIES,
        default="medium",
        help="how alike positive and benign nodes are, and the noise (default medium)",
    )
    group.add_argument(
        "--positives",
        type=float,
        default=4.0,
        metavar="MEAN",
        help="positive nodes per case that has any (default 4)",
    )
    group.add_argument("--noise", type=float, metavar="HU", help="standard deviation of the image noise")
    group.add_argument(
        "--oblique",
        type=float,
        default=0.0,
        metavar="DEGREES",
        help="rotate the header at random by up to this angle",
    )
    group.add_argument("--flip", action="store_true", help="flip axes of header and voxels at random")
    group.add_argument(
        "--table", action=argparse.BooleanOptionalAction, default=True, help="draw a CT table (default on)"
    )


def _three_integers(text: str) -> tuple[int, int, int]:
    z, y, x = (int(part) for part in text.split())
    return z, y, x


def _three_numbers(text: str) -> tuple[float, float, float]:
    z, y, x = (float(part) for part in text.split())
    return z, y, x


def _count_cases(args: argparse.Namespace) -> tuple[int, int]:
    cases, test_cases = FULL_CASES if args.full else DEFAULT_CASES
    return (
        cases if args.cases is None else args.cases,
        test_cases if args.test_cases is None else args.test_cases,
    )


def _find_destination(args: argparse.Namespace) -> Path:
    """The task folder; refuses a number another task of the folder has, hosts look tasks up by number."""
    from nndet_psma.core.errors import UserError
    from nndet_psma.dataset.paths import data_root

    root = data_root() if args.output is None else args.output.expanduser()
    if not 0 <= args.task <= 999:
        raise UserError("the task number is out of range", expected="0 to 999", found=str(args.task))
    if not re.fullmatch(r"[A-Za-z0-9_-]+", args.name):
        raise UserError(
            "the task name is not usable", expected="letters, digits, '_' and '-' only", found=repr(args.name)
        )
    folder = root / f"Task{args.task:03d}_{args.name}"
    others = [other for other in root.glob(f"Task{args.task:03d}_*") if other != folder]
    if others:
        raise UserError(
            f"number {args.task} belongs to another task", file=others[0], remedy="Choose another --task"
        )
    return folder
