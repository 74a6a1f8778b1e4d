"""``nndet_psma convert``: bring foreign data into the raw format of a task."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

from nndet_psma.cli.convert_boxes import add_boxes_arguments, convert_boxes
from nndet_psma.cli.convert_candidates import add_candidates_arguments, convert_candidates
from nndet_psma.cli.convert_dicom import add_dicom_arguments, check_task_name, convert_dicom_folders
from nndet_psma.cli.convert_nndet import (
    add_from_arguments,
    add_to_arguments,
    export_model_folder,
    import_model_folder,
)

_NAMED_PATTERN = re.compile(r"(?P<name>[^=\s]+)=(?P<pattern>.+)")


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command, one sub-command per kind of source."""
    parser = argparse.ArgumentParser(prog="nndet_psma convert", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    _add_nifti(kinds.add_parser("nifti", help="a folder of NIfTI studies"))
    dicom = kinds.add_parser("dicom", help="folders of DICOM files: CT, PET, MR, structure sets")
    add_dicom_arguments(dicom)
    boxes = kinds.add_parser("nndet-boxes", help="predictions of nnDetection (*_boxes.pkl)")
    add_boxes_arguments(boxes)
    add_from_arguments(kinds.add_parser("nndet-model", help="a model folder of nnDetection with its results"))
    candidates = kinds.add_parser(
        "candidates", help="what a detector has found, as a task for a second stage"
    )
    add_candidates_arguments(candidates)
    add_to_arguments(kinds.add_parser("to-nndet", help="our results as a model folder of nnDetection"))
    return parser


def run(args: argparse.Namespace) -> int:
    """Convert and say what was written."""
    other = {
        "candidates": convert_candidates,
        "nndet-boxes": convert_boxes,
        "nndet-model": import_model_folder,
        "to-nndet": export_model_folder,
    }
    if args.kind in other:
        return other[args.kind](args)
    if args.kind == "dicom":
        return convert_dicom_folders(args)
    return _convert_nifti(args)


def _convert_nifti(args: argparse.Namespace) -> int:
    from nndet_psma.core.errors import UserError
    from nndet_psma.dataset.convert.nifti import NiftiSource, convert_nifti
    from nndet_psma.dataset.task.paths import TaskPaths, data_root

    check_task_name(args.task, args.name)
    names = [name for name, _ in args.image]
    if len(set(names)) != len(names):
        raise UserError(
            "two images have the same name",
            found=", ".join(names),
            remedy="Give every --image a name of its own",
        )
    source = NiftiSource(
        folder=args.source,
        images=dict(args.image),
        label=args.label,
        ctv=args.ctv,
        class_name=args.class_name,
        instances=args.instances,
        values=args.values,
        soft=args.soft,
    )
    root = data_root() if args.output is None else args.output
    paths = TaskPaths(root / f"Task{args.task:03d}_{args.name}")
    done = convert_nifti(
        source,
        paths,
        test_share=args.test_share,
        seed=args.seed,
        overwrite=args.overwrite,
        num_processes=args.num_processes,
    )
    print(f"{paths.root}: {len(done.training)} training cases, {len(done.test)} test cases,", end=" ")
    print(f"{done.num_lesions} lesions; {len(done.skipped)} cases were finished before")
    print(f"Next: nndet_psma check {args.task} --full")
    if args.label is None:
        print(f"then, with a trained model: nndet_predict OTHER_TASK MODEL -i {paths.images('Ts')} -o FOLDER")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)


def _add_nifti(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "One case for everything that the * of the patterns can stand for. The first image defines the grid; "
        "the others are resampled onto it."
    )
    parser.add_argument("source", type=Path, help="folder of all studies")
    parser.add_argument("--task", type=int, required=True, help="number of the new task")
    parser.add_argument("--name", required=True, help="name of the new task")
    parser.add_argument(
        "--image",
        type=_named_pattern,
        action="append",
        required=True,
        metavar="NAME=PATTERN",
        help='modality and its files below SOURCE, e.g. "CT=*/CT.nii.gz"; repeat for more modalities',
    )
    parser.add_argument(
        "--label", metavar="PATTERN", help="lesion masks; without them a task of test cases, to be predicted"
    )
    parser.add_argument("--ctv", metavar="PATTERN", help="masks of the search region")
    parser.add_argument(
        "--class", dest="class_name", default="lesion", metavar="NAME", help="class of the lesions"
    )
    parser.add_argument(
        "--instances", action="store_true", help="masks hold one number per lesion; do not split components"
    )
    parser.add_argument(
        "--values",
        type=_numbers,
        default=(),
        metavar="N[,N]",
        help="values of the lesion masks that are lesions, e.g. 2 (needed where a mask holds several)",
    )
    parser.add_argument(
        "--soft", action="store_true", help="threshold interpolated masks at 0.5 (else they are refused)"
    )
    parser.add_argument(
        "--test-share", type=float, default=0.0, help="share of patients for testing (default %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the random test patients (default %(default)s)"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder of all tasks (default $det_data)")
    parser.add_argument("--overwrite", action="store_true", help="convert finished cases again")
    parser.add_argument(
        "--num_processes", type=int, default=min(4, os.cpu_count() or 1), help="(default %(default)s)"
    )


def _named_pattern(text: str) -> tuple[str, str]:
    parts = _NAMED_PATTERN.fullmatch(text)
    if parts is None:
        raise argparse.ArgumentTypeError(f'expected NAME=PATTERN, e.g. "CT=*/CT.nii.gz", found {text!r}')
    return parts["name"], parts["pattern"]


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"expected whole numbers from 1, e.g. 2 or 1,2, found {text!r}")
    return tuple(int(part) for part in parts)
