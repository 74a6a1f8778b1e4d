"""``nndet_psma measure``: node tables and structured reports from masks or detected boxes."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nndet_psma.cli.arguments import say

if TYPE_CHECKING:
    from nndet_psma.report.structured.artifact import StructuredReport


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="nndet_psma measure",
        description="Measure lymph nodes, stage every patient N0 or N1 by size, and write a report of each.",
    )
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="MASKS", help="masks, *_boxes.json, or folders of either"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")
    add_rule(parser)
    parser.add_argument(
        "--images", type=Path, help="folder of the images, for pictures: CASE_0000.nii.gz or CASE.nii.gz"
    )
    parser.add_argument(
        "--window",
        nargs=2,
        type=float,
        metavar=("LOWER", "UPPER"),
        help="intensities shown as black and white, e.g. -125 225 for CT (default: fitted to the image)",
    )
    parser.add_argument(
        "--dicom",
        type=Path,
        metavar="FOLDER",
        help="DICOM series that was measured (several cases: one sub-folder named as each); writes DICOM SR",
    )
    parser.add_argument(
        "--max_pictures", type=int, default=12, help="nodes shown on a page (default %(default)s)"
    )
    return parser


def add_rule(parser: argparse.ArgumentParser) -> None:
    """What is a node, and when it is suspicious."""
    parser.add_argument(
        "--threshold_mm",
        type=_positive,
        default=8.0,
        help="short diameter above which a node is suspicious (default %(default)s)",
    )
    parser.add_argument("--source", default="", help="where that threshold comes from; reports quote it")
    parser.add_argument(
        "--diameter",
        choices=("box", "in_plane"),
        default="box",
        help="shortest side of the minimum-volume bounding box, or in-plane short axis (default %(default)s)",
    )
    parser.add_argument(
        "--largest_by",
        choices=("diameter", "volume"),
        default="diameter",
        help="what makes a node the largest (default %(default)s)",
    )
    parser.add_argument(
        "--nodes",
        choices=("auto", "components", "instances"),
        default="auto",
        help="split masks into connected components, or keep their ids (default: components of a mask of one "
        "value, whichever it is; ids where there are several)",
    )
    parser.add_argument(
        "--soft", action="store_true", help="threshold interpolated masks at 0.5 (else they are refused)"
    )
    parser.add_argument(
        "--connectivity",
        type=int,
        choices=(6, 18, 26),
        default=26,
        help="neighbours that make a component (default %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Measure, and print one line per patient."""
    from nndet_psma.core.errors import UserError
    from nndet_psma.nodes.staging import StagingRule
    from nndet_psma.stages.measure import MeasureJob, measure

    if args.window is not None and not args.window[0] < args.window[1]:
        raise UserError("window that makes no sense", expected="LOWER below UPPER", found=str(args.window))
    reports = measure(
        MeasureJob(
            inputs=args.inputs,
            target=args.output,
            rule=StagingRule(args.threshold_mm, args.diameter, args.largest_by, args.source),
            nodes=args.nodes,
            connectivity=args.connectivity,
            images=args.images,
            window=None if args.window is None else tuple(args.window),
            dicom=args.dicom,
            max_pictures=args.max_pictures,
            soft=args.soft,
        )
    )
    for report in reports:
        say(_line(report))
    positive = sum(report.result.stage == "N1" for report in reports)
    say(f"{args.output}: {len(reports)} reports, {positive} of them N1 by size (research software)")
    return 0


def _line(report: StructuredReport) -> str:
    result = report.result
    text = (
        f"{report.case_id}: {result.stage}, {len(result.suspicious)} of {len(report.nodes)} nodes suspicious"
    )
    if result.largest is None:
        return text
    largest = report.node(result.largest)
    zone = report.rule.zone_mm(largest)
    spread = "" if zone is None else f" ({zone[0]:.1f} to {zone[1]:.1f})"
    hinges = "; the stage hinges on borderline nodes only" if result.hinges_on else ""
    borderline = f", {len(result.borderline)} borderline" if result.borderline else ""
    return f"{text}{borderline}, largest {report.rule.short_mm(largest):.1f} mm{spread}{hinges}"


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number, found '{text}'")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
