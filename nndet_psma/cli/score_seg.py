"""``nndet_psma score-seg``: masks of nodes against a reference; one JSON object on standard output."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from nndet_psma.cli.measure import add_rule


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="nndet_psma score-seg",
        description="Score masks of nodes: voxels, distances, nodes, sizes and N stage. Prints one JSON object.",
    )
    parser.add_argument("--pred", type=Path, required=True, metavar="FOLDER", help="masks to be scored")
    parser.add_argument("--truth", type=Path, required=True, metavar="FOLDER", help="masks of the same cases")
    parser.add_argument("-o", "--output", type=Path, help="folder for tables and agreement plots")
    parser.add_argument(
        "--patients", type=Path, metavar="FILE", help="CSV with case_id and patient_id, e.g. clinical.csv"
    )
    parser.add_argument(
        "--draws", type=int, default=1000, help="bootstrap draws over patients (default %(default)s)"
    )
    add_rule(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Score and print."""
    from nndet_psma.core.schema import to_plain
    from nndet_psma.nodes.staging import StagingRule
    from nndet_psma.stages.score_seg import SegJob, score_seg

    scores = score_seg(
        SegJob(
            predictions=args.pred,
            truth=args.truth,
            rule=StagingRule(args.threshold_mm, args.diameter, args.largest_by, args.source),
            nodes=args.nodes,
            connectivity=args.connectivity,
            patients=args.patients,
            target=args.output,
            draws=args.draws,
            soft=args.soft,
        )
    )
    print(json.dumps(to_plain(scores), indent=2, allow_nan=False))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
