"""``nndet_psma score``: recompute published scores from tables; one JSON object on standard output."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path


def build_parser() -> argparse.ArgumentParser:
    """One sub-command per kind of table."""
    parser = argparse.ArgumentParser(
        prog="nndet_psma score", description="Score tables from elsewhere; prints one JSON object."
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    _add_froc(kinds.add_parser("froc", help="FROC and CPM of points, LUNA16's CSV form and rules"))
    _add_roc(kinds.add_parser("roc", help="AUC, sensitivity, specificity ... of a yes-or-no question"))
    _add_confusion(kinds.add_parser("confusion", help="agreement of two columns of categories, and kappa"))
    _add_printed(kinds.add_parser("printed", help="counts that print as given percentages"))
    mcnemar = kinds.add_parser("mcnemar", help="McNemar's p where only the numbers of errors are known")
    mcnemar.add_argument("--errors", type=_whole, nargs=2, required=True, metavar="N", help="of either rater")
    mcnemar.add_argument("--total", type=_count, required=True, metavar="N", help="rows")
    boxes = kinds.add_parser("boxes", help="average precision of 2D boxes, COCO JSON")
    _add_pair(boxes, "JSON")
    boxes.add_argument(
        "--iou",
        type=_share,
        nargs="+",
        default=[],
        help="average precision of each class also at these, read at all points and at eleven recalls",
    )
    points = kinds.add_parser("points", help="points within a radius: tp, fp, fn")
    _add_pair(points, "CSV: x, y, optional z, case, score")
    points.add_argument("--radius", type=_positive, required=True, help="a hit lies at most so far away")
    return parser


def _add_pair(parser: argparse.ArgumentParser, form: str) -> None:
    parser.add_argument("--truth", type=Path, required=True, metavar="FILE", help=f"what is there ({form})")
    parser.add_argument("--pred", type=Path, required=True, metavar="FILE", help=f"what was found ({form})")
    parser.add_argument(
        "--strip-suffix",
        action="append",
        default=[],
        metavar="SUFFIX",
        help="cut this end off identifiers before they are compared, e.g. .mhd; may be repeated",
    )
    parser.add_argument(
        "--match-numbers", action="store_true", help="identifiers 001 and 1 are the same, as text or number"
    )


def _add_froc(parser: argparse.ArgumentParser) -> None:
    _add_pair(parser, "CSV: seriesuid, coordX, coordY, coordZ, diameter_mm / probability")
    parser.add_argument("--cases", type=Path, metavar="FILE", help="all scans that count (seriesuid)")
    parser.add_argument("--exclude", type=Path, metavar="FILE", help="findings that count neither way")
    parser.add_argument(
        "--hit",
        type=_radius,
        default=None,
        metavar="radius|MM",
        help="a hit lies closer than half the diameter of the finding, or than so many mm (default radius)",
    )
    parser.add_argument(
        "--max-per-case", type=_count, metavar="N", help="only the N best candidates of a scan"
    )


def _add_roc(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--table", type=Path, required=True, metavar="FILE", help="CSV")
    parser.add_argument("--label", required=True, metavar="COLUMN", help="truth, 0 or 1")
    parser.add_argument("--score", required=True, metavar="COLUMN", help="score, or decision (0 or 1)")
    parser.add_argument("--score2", metavar="COLUMN", help="second score, compared with McNemar's test")
    more = parser.add_argument_group("more")
    more.add_argument("--patient", metavar="COLUMN", help="intervals that draw patients, not rows")
    more.add_argument(
        "--strata", metavar="COLUMN", help="AUC in each stratum, and of pairs inside strata only"
    )
    more.add_argument(
        "--stratified-replicates",
        type=_count,
        default=0,
        metavar="N",
        help="interval of the AUC from N draws that keep the numbers of both kinds (pROC's; seed 0)",
    )
    more.add_argument(
        "--at-sensitivity", type=_share, metavar="SHARE", help="rates at the threshold that reaches it"
    )
    more.add_argument(
        "--calibration",
        dest="probabilities",
        action="append_const",
        const="calibration",
        default=[],
        help="slope, intercept, expected calibration error, reliability of probabilities",
    )
    more.add_argument(
        "--decision-curve",
        dest="probabilities",
        action="append_const",
        const="decision_curve",
        help="net benefit of probabilities at thresholds 0.01 to 0.60",
    )
    more.add_argument(
        "--compare",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="further scores; every pair by McNemar and DeLong, with Bonferroni and Holm",
    )


def _add_confusion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--table", type=Path, required=True, metavar="FILE", help="CSV")
    parser.add_argument(
        "--label", required=True, metavar="COLUMN", help="category by one reader, or the truth"
    )
    parser.add_argument("--confusion", required=True, metavar="COLUMN", help="category by the other")
    parser.add_argument("--count", metavar="COLUMN", help="how many objects a row stands for")
    parser.add_argument(
        "--collapse", nargs="+", default=[], metavar="A,B=C", help="make one category of several"
    )
    parser.add_argument(
        "--order", nargs="+", default=[], metavar="CATEGORY", help="from low to high, for weighted kappa"
    )


def _add_printed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--positives", type=_count, required=True, metavar="N", help="rows that are a yes")
    parser.add_argument("--negatives", type=_count, required=True, metavar="N", help="rows that are a no")
    parser.add_argument(
        "--printed",
        nargs="+",
        required=True,
        type=_percentage,
        metavar="NAME=PERCENT",
        help="such as sensitivity=86",
    )
    parser.add_argument(
        "--decimals", type=int, choices=range(5), default=0, help="printed digits after the point"
    )


def run(args: argparse.Namespace) -> int:
    """Score and print."""
    result = _of_two_files(args) if args.kind in ("froc", "boxes", "points") else _of_one_table(args)
    print(json.dumps(result, indent=2, allow_nan=False))
    return 0


def _of_two_files(args: argparse.Namespace) -> Mapping[str, object]:
    """What was found against what is there."""
    from nndet_psma.evaluation.tables.identifiers import Spelling
    from nndet_psma.stages import score

    spelling = Spelling(tuple(args.strip_suffix), args.match_numbers)
    if args.kind == "boxes":
        return score.score_coco(args.truth, args.pred, ious=args.iou, spelling=spelling)
    if args.kind == "points":
        return score.score_point_tables(args.truth, args.pred, args.radius, spelling)
    return score.score_froc(
        args.truth,
        args.pred,
        cases=args.cases,
        excluded=args.exclude,
        radius_mm=args.hit,
        max_per_case=args.max_per_case,
        spelling=spelling,
    )


def _of_one_table(args: argparse.Namespace) -> Mapping[str, object]:
    """A table of judgements, or only what was printed of one."""
    from nndet_psma.stages import score

    if args.kind == "confusion":
        return score.score_confusion(
            args.table, args.label, args.confusion, count=args.count, collapse=args.collapse, order=args.order
        )
    if args.kind == "printed":
        return score.score_printed(args.positives, args.negatives, args.printed, args.decimals)
    if args.kind == "mcnemar":
        return score.score_margins(args.errors[0], args.errors[1], args.total)
    return score.score_roc(
        args.table,
        args.label,
        args.score,
        args.score2,
        patient=args.patient,
        strata=args.strata,
        compare=args.compare,
        stratified_replicates=args.stratified_replicates,
        at_sensitivity=args.at_sensitivity,
        probabilities=args.probabilities,
    )


def _radius(text: str) -> float | None:
    return None if text == "radius" else _positive(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a positive number, found '{text}'")
    return value


def _share(text: str) -> float:
    value = _positive(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and up to 1, found '{text}'")
    return value


def _percentage(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected NAME=PERCENT, found '{text}'") from None


def _whole(text: str) -> int:
    return 0 if text == "0" else _count(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, found '{text}'")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
