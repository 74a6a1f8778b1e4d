"""``nndet_psma convert nndet-model`` and ``to-nndet``: whole model folders from and for genuine nnDetection."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nndet_psma.cli.arguments import add_model, add_task

if TYPE_CHECKING:
    from nndet_psma.artifacts.model_folder import ModelFolder


def add_from_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``nndet-model``."""
    parser.description = (
        "Make a model folder of ours of nnDetection's results, so that nndet_eval, report and submit work on them. "
        "Boxes only, no weights. Several models vote, as HU windows do."
    )
    add_task(parser)
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="nnDetection's model folders, e.g. RetinaUNetV001_D3V001_3d",
    )
    parser.add_argument("--as", dest="name", required=True, metavar="NAME", help="of the new model folder")
    parser.add_argument(
        "--score_threshold", type=float, help="of accepted lesions (default: best F1 on the validation cases)"
    )
    parser.add_argument(
        "--vote_iou", type=float, default=0.5, help="IoU from which on models agree (default %(default)s)"
    )
    parser.add_argument(
        "--min_votes", type=int, default=1, help="models that must agree on a lesion (default %(default)s)"
    )


def add_to_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``to-nndet``."""
    parser.description = "Make a model folder of nnDetection of our predictions, for its own nndet_eval."
    add_task(parser)
    add_model(parser)
    parser.add_argument("fold", type=int, help="fold; -1 is the consolidated model")
    parser.add_argument("--test", action="store_true", help="test cases instead of validation cases")
    parser.add_argument("--as", dest="name", required=True, metavar="NAME", help="of the new model folder")


def import_model_folder(args: argparse.Namespace) -> int:
    """Import and say what was found."""
    from nndet_psma.core.errors import UserError
    from nndet_psma.dataset.task.paths import find_task
    from nndet_psma.hosts.nndetection.results_import import ImportSettings, import_results

    paths = find_task(args.task)
    settings = ImportSettings(args.score_threshold, args.vote_iou, args.min_votes)
    target = _folder(paths.name, args.name)
    sources = [target.root.parent / name for name in args.models]
    missing = [source for source in sources if not source.is_dir()]
    if missing:
        raise UserError("no such model folder", file=missing[0], remedy="Correct the path")
    for fold in import_results(paths, sources, target, settings):
        counts = f"{len(fold.validation)} validation and {len(fold.test)} test cases"
        print(f"fold {fold.fold}: {counts}, lesions from score {fold.score_threshold:.3g}")
    print(f"{target.root}: next, nndet_eval {args.task} {args.name} FOLD [--test] --boxes")
    return 0


def export_model_folder(args: argparse.Namespace) -> int:
    """Export and say where."""
    from nndet_psma.artifacts.model_folder import find_model
    from nndet_psma.artifacts.prediction import Prediction
    from nndet_psma.dataset.task.paths import find_task
    from nndet_psma.hosts.nndetection.results_export import export_results
    from nndet_psma.stages.scored_cases import predictions_folder

    paths = find_task(args.task)
    source = find_model(args.task, args.model)
    folder = predictions_folder(source, args.fold, args.test)
    predictions = [Prediction.read(file) for file in sorted(folder.glob("*_boxes.json"))]
    target = _folder(paths.name, args.name)
    written = export_results(paths, predictions, target, args.fold, test=args.test)
    flag = " --test" if args.test else ""
    print(f"{written}: {len(predictions)} cases")
    print(
        f"Next, with nnDetection: nndet_eval {args.task} {args.name} {args.fold}{flag} --boxes --host nndet"
    )
    return 0


def _folder(task: str, name: str) -> ModelFolder:
    from nndet_psma.artifacts.model_folder import ModelFolder
    from nndet_psma.core.errors import UserError
    from nndet_psma.dataset.task.paths import models_root

    if Path(name).name != name or name in ("", ".", ".."):
        raise UserError("no name of a model folder", found=name, expected="letters, digits, _ and -")
    return ModelFolder(models_root() / task / name)
