"""``nndet_psma export-model``: a consolidated model as one zip."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nndet_psma.cli.arguments import add_model, add_task, say


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="nndet_psma export-model",
        description="Write weights, plan and thresholds into one zip. It holds no case names, no paths and no code.",
    )
    add_task(parser)
    add_model(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="ZIP", help="file to write")
    parser.add_argument("--folds", type=int, nargs="+", help="only these folds (default: all consolidated)")
    parser.add_argument("--licence", help="what a recipient may do with the weights; stated in the manifest")
    return parser


def run(args: argparse.Namespace) -> int:
    """Export and say how large it is."""
    from nndet_psma.artifacts.model_folder import find_model
    from nndet_psma.core.errors import UserError
    from nndet_psma.stages.export_model import NO_LICENCE, ExportJob, export_model

    if args.output.suffix != ".zip":
        raise UserError("the output must be a zip", file=args.output, remedy="Name it, e.g. model.zip")
    job = ExportJob(find_model(args.task, args.model), args.output, args.folds, args.licence or NO_LICENCE)
    manifest = export_model(job)
    size = args.output.stat().st_size / 1e6
    say(f"{args.output} ({size:.1f} MB): folds {manifest.folds}, {len(manifest.files)} files")
    say(f"licence: {manifest.licence}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
