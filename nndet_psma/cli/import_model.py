"""``nndet_psma import-model``: a model from a zip of export-model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nndet_psma.cli.arguments import add_trust, say


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="nndet_psma import-model",
        description="Check a model from elsewhere and put it where nndet_predict finds it. Nothing in it is run.",
    )
    parser.add_argument("archive", type=Path, metavar="ZIP", help="written by nndet_psma export-model")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--task", help="task to put it under (default: the sender's)")
    place.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="model folder to make")
    parser.add_argument("--force", action="store_true", help="replace a consolidated model that is there")
    add_trust(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Import and say how to use it."""
    from nndet_psma.artifacts.prediction import Prediction
    from nndet_psma.stages.import_model import ImportJob, import_model
    from nndet_psma.systems.system import model_system

    folder, manifest = import_model(ImportJob(args.archive, args.task, args.output, args.force))
    say(f"{folder.root}: folds {manifest.folds}, written by nndet_psma {manifest.package_version}")
    say(f"licence: {manifest.licence}")
    if args.output is None:
        say(f"Next: nndet_predict {folder.root.parent.name} {folder.root.name} -i IMAGES -o FOLDER")
    elif issubclass(model_system(folder)[0].result_type, Prediction):
        say(f"Next: Predictor.from_folder('{folder.root}') in Python")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
