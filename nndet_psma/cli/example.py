"""``nndet_example``: write a synthetic raw task (nnDetection's command of the same name, with pelves beside cubes)."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# Kept here as well as in the generator, which imports scipy: --help has to answer at once. A test compares them.
DIFFICULTIES = ("easy", "medium", "hard")
SIGNALS = ("texture", "station", "size")


class KindDefaults(NamedTuple):
    """What a kind of task is called and how large it is unless asked otherwise."""

    task: int
    name: str
    cases: tuple[int, int]
    full: tuple[int, int]
    what: str


KINDS = {
    "psma": KindDefaults(
        100, "PSMAPhantom", (24, 8), (100, 30), "CT of male pelves, nodal CTV, positive nodes"
    ),
    "dwi": KindDefaults(
        101, "DWIPhantom", (24, 8), (100, 30), "b800 and ADC of the same pelves, all lymph nodes"
    ),
    "squares": KindDefaults(
        0, "Example", (10, 10), (1000, 1000), "nnDetection's toy task: cubes, two classes"
    ),
    "node_status": KindDefaults(
        102, "NodeStatus", (60, 30), (300, 100), "nodes whose status shows in texture, station or size"
    ),
}
KIND_NAMES = tuple(KINDS)
OPTION_NAMES = (
    "size",
    "spacing",
    "difficulty",
    "positives",
    "noise",
    "oblique",
    "flip",
    "table",
    "image_size",
    "signal",
    "nodes",
)


def build_parser() -> argparse.ArgumentParser:
    """Arguments of ``nndet_example``; ``--full`` and ``--num_processes`` are nnDetection's."""
    parser = argparse.ArgumentParser(
        prog="nndet_example",
        description="Write a synthetic raw task: "
        + "; ".join(f"{kind}: {default.what}" for kind, default in KINDS.items())
        + ".",
    )
    parser.add_argument("--full", action="store_true", help=f"more cases: {_counts('full')}")
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
    from nndet_psma.dataset.phantom.kinds import make_options
    from nndet_psma.dataset.phantom.task import generate_task

    given = {name: getattr(args, name) for name in OPTION_NAMES if getattr(args, name) is not None}
    options = make_options(args.kind, given)
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
    group.add_argument("--cases", type=int, metavar="N", help="training cases")
    group.add_argument(
        "--test-cases", type=int, metavar="N", help=f"test cases (defaults: {_counts('cases')})"
    )
    group.add_argument("--seed", type=int, default=0, help="same seed, same voxels (default 0)")
    tasks = ", ".join(f"{default.task:03d} {default.name}" for default in KINDS.values())
    group.add_argument("--task", type=int, metavar="ID", help=f"task number (defaults: {tasks})")
    group.add_argument("--name", help="task name")
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
    group = parser.add_argument_group("phantom", "defaults for psma; dwi has a grid of its own")
    group.add_argument(
        "--size", type=_three_integers, metavar="'Z Y X'", help="voxels (psma '36 144 192', dwi '40 160 208')"
    )
    group.add_argument(
        "--spacing",
        type=_three_numbers,
        metavar="'Z Y X'",
        help="voxel size, mm (psma '4.0 2.0 2.0', dwi '3.5 1.8 1.8')",
    )
    group.add_argument(
        "--difficulty",
        choices=DIFFICULTIES,
        help="how alike positive and benign nodes are, and the noise (default medium)",
    )
    group.add_argument(
        "--positives", type=float, metavar="MEAN", help="positive nodes per case that has any (default 4)"
    )
    group.add_argument("--noise", type=float, metavar="HU", help="standard deviation of the image noise")
    group.add_argument(
        "--oblique", type=float, metavar="DEGREES", help="rotate the header at random by up to this angle"
    )
    group.add_argument(
        "--flip", action="store_true", default=None, help="flip axes of header and voxels at random"
    )
    group.add_argument(
        "--table", action=argparse.BooleanOptionalAction, help="draw a CT table (default on; MR shows none)"
    )
    squares = parser.add_argument_group("squares")
    squares.add_argument(
        "--image_size",
        type=_three_integers,
        metavar="'Z Y X'",
        help="voxels (default '64 64 64'; nnDetection's example has '256 256 256')",
    )

    group = parser.add_argument_group("node_status")
    group.add_argument(
        "--signal", choices=SIGNALS, help="what alone tells the status of a node (default texture)"
    )
    group.add_argument("--nodes", type=int, metavar="N", help="nodes of a case (default 8)")


def _three_integers(text: str) -> tuple[int, int, int]:
    z, y, x = (int(part) for part in text.split())
    return z, y, x


def _three_numbers(text: str) -> tuple[float, float, float]:
    z, y, x = (float(part) for part in text.split())
    return z, y, x


def _counts(key: str) -> str:
    """Numbers of cases of all kinds, for the help."""
    counts = {kind: getattr(default, key) for kind, default in KINDS.items()}
    return ", ".join(f"{kind} {train} + {test}" for kind, (train, test) in counts.items())


def _count_cases(args: argparse.Namespace) -> tuple[int, int]:
    cases, test_cases = KINDS[args.kind].full if args.full else KINDS[args.kind].cases
    return (
        cases if args.cases is None else args.cases,
        test_cases if args.test_cases is None else args.test_cases,
    )


def _find_destination(args: argparse.Namespace) -> Path:
    """The task folder; refuses a number another task of the folder has, hosts look tasks up by number."""
    from nndet_psma.core.errors import UserError
    from nndet_psma.dataset.task.paths import data_root

    number = KINDS[args.kind].task if args.task is None else args.task
    name = KINDS[args.kind].name if args.name is None else args.name
    root = data_root() if args.output is None else args.output.expanduser()
    if not 0 <= number <= 999:
        raise UserError("the task number is out of range", expected="0 to 999", found=str(number))
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UserError(
            "the task name is not usable", expected="letters, digits, '_' and '-' only", found=repr(name)
        )
    folder = root / f"Task{number:03d}_{name}"
    others = [other for other in root.glob(f"Task{number:03d}_*") if other != folder]
    if others:
        raise UserError(
            f"number {number} belongs to another task", file=others[0], remedy="Choose another --task"
        )
    return folder
