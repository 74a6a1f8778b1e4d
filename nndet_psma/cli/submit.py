"""``nndet_psma submit``: predictions in the form that challenges and other tools read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nndet_psma.cli.arguments import MODEL_HELP, say

if TYPE_CHECKING:
    from nndet_psma.artifacts.results import Result

FORMATS = (
    *("boxes-json", "lesions-csv", "luna-csv", "detection-map", "label-map", "coco-json", "nndet-pkl"),
    *("judgements-csv", "judgements-json"),
)


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="nndet_psma submit",
        description="Write the predictions of a model, or of any folder with -i, in a form that others read.",
    )
    parser.add_argument("task", nargs="?", help="number, name or folder name of the task, e.g. 100")
    parser.add_argument("model", nargs="?", help=MODEL_HELP)
    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        help="folder of *_boxes.json, *_judged.json or *_call.json, or of nnDetection's *_boxes.pkl, not a model",
    )
    parser.add_argument(
        "--format",
        required=True,
        choices=FORMATS,
        help="judgements-csv and judgements-json for models that judge objects or cases, the others for boxes",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="folder to write to (default: submission_FORMAT in the model folder)",
    )
    parser.add_argument(
        "-f", "--fold", type=int, default=-1, help="fold; -1 is the consolidated model (default)"
    )
    parser.add_argument(
        "--val", action="store_true", help="validation predictions instead of those of the test set"
    )
    parser.add_argument(
        "--boxes",
        choices=("lesions", "candidates"),
        help="what the tuned thresholds accept, or all ranked candidates, which FROC and AP need "
        "(default: candidates for luna-csv, detection-map, coco-json and nndet-pkl, lesions otherwise)",
    )
    parser.add_argument(
        "--score_threshold", type=float, default=0.0, help="leave out what scores less (default 0)"
    )
    parser.add_argument("--max_per_case", type=int, help="keep this many of the best of each case")
    parser.add_argument(
        "--image_format", choices=("nii.gz", "mha"), default="nii.gz", help="of maps (default %(default)s)"
    )
    parser.add_argument(
        "--shape",
        choices=("box", "ellipsoid"),
        default="box",
        help="of lesions in maps (default %(default)s)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the submission and say where it lies."""
    from nndet_psma.stages.submit import SubmitJob, submit

    predictions, classes, target = _inputs(args)
    done = submit(
        SubmitJob(
            predictions=predictions,
            format=args.format,
            target=target,
            which=args.boxes,
            score_threshold=args.score_threshold,
            max_per_case=args.max_per_case,
            classes=classes,
            suffix=f".{args.image_format}",
            shape=args.shape,
        )
    )
    say(f"{target}: {len(done.files)} files, {done.told}")
    for case_id, count in done.lost.items():
        say(f"{case_id}: {count} lesions have no voxel of their own beside better ones")
    return 0


def _inputs(args: argparse.Namespace) -> tuple[Sequence[Result], dict[int, str], Path]:
    """Predictions, class names (where a model tells them) and the folder to write to."""
    from nndet_psma.artifacts.model_folder import TEST_PREDICTIONS, VAL_PREDICTIONS, find_model
    from nndet_psma.core.errors import UserError
    from nndet_psma.stages.submit import read_submitted
    from nndet_psma.systems.system import model_system

    if args.input is not None:
        if args.task is not None or args.output is None:
            raise UserError(
                "-i names a folder, so it needs -o FOLDER and no model",
                remedy="Say nndet_psma submit -i FOLDER -o FOLDER --format ...",
            )
        return read_submitted(args.input), {}, args.output
    if args.model is None:
        raise UserError(
            "name a task and a model, or a folder with -i", remedy="nndet_psma submit --help shows both forms"
        )
    folder = find_model(args.task, args.model)
    system, plan = model_system(folder, args.fold)
    classes = {int(index): name for index, name in plan.classes.items()}
    place = folder.fold(args.fold)
    source = place / (VAL_PREDICTIONS if args.val else TEST_PREDICTIONS)
    results = read_submitted(source, classes, system.result_type)
    return results, classes, args.output or place / f"submission_{args.format}"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
