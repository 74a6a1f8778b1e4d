"""``nndet_psma roi``: a search region or an organ mask for tasks that lack it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nndet_psma.cli.arguments import add_task, say


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command, one sub-command per way."""
    parser = argparse.ArgumentParser(prog="nndet_psma roi", description=__doc__)
    ways = parser.add_subparsers(dest="way", required=True, metavar="WAY")
    _add_vessels(ways.add_parser("vessels", help="a nodal CTV by rule from masks of the iliac vessels"))
    return parser


def run(args: argparse.Namespace) -> int:
    """Make the masks."""
    return _vessels(args)


def _vessels(args: argparse.Namespace) -> int:
    from nndet_psma.dataset.paths import find_task
    from nndet_psma.dataset.structures import read_label_names
    from nndet_psma.stages.nodal_ctv import NodalRule, make_nodal_ctv

    rule = NodalRule(margin_mm=args.margin, whole_length=args.whole_length)
    if args.vessels:
        rule = NodalRule(tuple(args.vessels), rule.excluded, args.margin, args.whole_length)
    if args.exclude:
        rule = NodalRule(rule.vessels, tuple(args.exclude), args.margin, args.whole_length)
    paths = find_task(args.task)
    labels = None if args.labels is None else read_label_names(args.labels)
    index = make_nodal_ctv(paths, args.masks, rule, labels=labels, replace=args.overwrite, say=say)
    say(f"CTV is modality {index} of {paths.name}. Look at it before you train; then: nndet_prep {args.task}")
    return 0


def _add_vessels(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Iliac vessels with a margin of 7 mm, from L5/S1 to the femoral heads, without bone, bowel, bladder and "
        "muscle (RTOG consensus). Masks are those of TotalSegmentator, or any of the same names."
    )
    add_task(parser)
    parser.add_argument(
        "--masks",
        type=Path,
        required=True,
        metavar="DIR",
        help="CASE/STRUCTURE.nii.gz, or CASE.nii.gz with numbers",
    )
    parser.add_argument(
        "--labels", type=Path, metavar="JSON", help="numbers of the structures, where headers do not tell"
    )
    parser.add_argument(
        "--margin", type=float, default=7.0, help="mm round the vessels (default %(default)s)"
    )
    parser.add_argument(
        "--vessels", nargs="+", metavar="PATTERN", help="structures to follow instead of iliac_*"
    )
    parser.add_argument(
        "--exclude", nargs="+", metavar="PATTERN", help="structures to carve out instead of the usual ones"
    )
    parser.add_argument(
        "--whole-length", action="store_true", help="do not end at L5/S1 and the femoral heads"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the CTV of the task")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
