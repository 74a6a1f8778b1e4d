"""``nndet_psma convert dicom``: DICOM images and structure sets as a raw task."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

_MODALITIES = ("CT", "PET", "DWI", "ADC", "T2")
_DEFAULT_NAME = "DICOM"


def add_dicom_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the sub-command."""
    parser.description = (
        "One case per study, however the files are arranged. PET becomes SUV (body weight); DWI is split by b-value; "
        "the first modality gives the grid. No identifier of a patient is written into the task."
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="hold the DICOM files")
    parser.add_argument("--task", type=int, required=True, help="number of the task")
    parser.add_argument("--name", default=_DEFAULT_NAME, help="name of the task (default %(default)s)")
    parser.add_argument(
        "--modalities",
        nargs="+",
        choices=_MODALITIES,
        metavar="NAME",
        help=f"of {', '.join(_MODALITIES)} (default: CT and PET, else DWI and ADC, else T2, as all studies have)",
    )
    _add_structures(parser)
    parser.add_argument(
        "--b-value",
        type=float,
        metavar="B",
        help="of the DWI, s/mm² (default: the highest that was measured)",
    )
    parser.add_argument(
        "--series",
        type=_named_pattern,
        action="append",
        default=[],
        metavar="NAME=REGEX",
        help="where a study has several series for a modality: the description of the right one",
    )
    parser.add_argument(
        "--mapping",
        type=Path,
        metavar="FILE.csv",
        help="private table of case, patient and study, outside of the task (default: none is written)",
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


def convert_dicom_folders(args: argparse.Namespace) -> int:
    """Convert and say what was written."""
    from nndet_psma.dataset.convert.dicom import DicomSource, convert_dicom
    from nndet_psma.dataset.dicom.studies import Choice
    from nndet_psma.dataset.task.paths import TaskPaths, data_root

    check_task_name(args.task, args.name)
    source = DicomSource(
        folders=tuple(args.folders),
        modalities=None if args.modalities is None else tuple(args.modalities),
        lesion_rois=tuple(args.lesion_roi),
        ctv_roi=args.ctv_roi,
        mask_rois=dict(args.mask_roi),
        class_name=args.class_name,
        allow_empty=args.allow_empty,
        choice=Choice(args.b_value, dict(args.series)),
    )
    root = data_root() if args.output is None else args.output
    paths = TaskPaths(root / f"Task{args.task:03d}_{args.name}")
    _check_number(args.task, paths.root)
    done = convert_dicom(
        source,
        paths,
        mapping=args.mapping,
        test_share=args.test_share,
        seed=args.seed,
        overwrite=args.overwrite,
        num_processes=args.num_processes,
    )
    print(f"{paths.root}: {len(done.training)} training cases, {len(done.test)} test cases,", end=" ")
    print(f"{done.num_lesions} lesions; {len(done.skipped)} cases were finished before")
    if source.lesion_rois:
        print(f"Next: nndet_psma check {args.task} --full")
    else:
        print(
            f"Without labels, for prediction: nndet_predict MODEL_TASK MODEL -i {paths.images('Ts')} -o FOLDER"
        )
    return 0


def check_task_name(number: int, name: str) -> None:
    """Refuse what no task folder can be called.

    Raises:
        UserError: the number or the name is not usable.
    """
    from nndet_psma.core.errors import UserError

    if not 0 <= number <= 999 or not re.fullmatch(r"\w+", name):
        raise UserError(
            "no valid task",
            expected="a number from 0 to 999 and a name of letters, digits and _",
            found=f"{number} {name}",
        )


def _add_structures(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "structures", "names may hold the wildcards * ? [...]; upper and lower case are the same"
    )
    group.add_argument(
        "--lesion-roi",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATTERN",
        help="lesions; every connected part of every structure is one (default: cases without labels)",
    )
    group.add_argument("--ctv-roi", metavar="PATTERN", help="the search region; several are joined")
    group.add_argument(
        "--mask-roi",
        type=_named_pattern,
        action="append",
        default=[],
        metavar="NAME=PATTERN",
        help="another mask modality, BLADDER or PROSTATE",
    )
    group.add_argument(
        "--class", dest="class_name", default="lesion", metavar="NAME", help="class of the lesions"
    )
    group.add_argument(
        "--allow-empty",
        action="store_true",
        help="a study without lesion structure is a case without lesions",
    )


def _check_number(number: int, folder: Path) -> None:
    from nndet_psma.core.errors import UserError

    others = [other for other in folder.parent.glob(f"Task{number:03d}_*") if other != folder]
    if others:
        raise UserError(
            f"number {number} belongs to another task", file=others[0], remedy="Choose another --task"
        )


def _named_pattern(text: str) -> tuple[str, str]:
    name, separator, pattern = text.partition("=")
    if not (separator and name.strip() and pattern):
        raise argparse.ArgumentTypeError(f"expected NAME=PATTERN, found {text!r}")
    return name.strip().upper(), pattern
