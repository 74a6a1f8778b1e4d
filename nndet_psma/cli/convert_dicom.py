"""``nndet_psma convert dicom``: DICOM images and structure sets as a raw task."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nndet_psma.dataset.convert.dicom import DicomSource

EXIT_SOME_FAILED = 3
"""Some studies were converted, others not."""

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
        "--accept-derived",
        action="store_true",
        help="take reformats (ImageType MPR), too, where nothing that was measured was sent",
    )
    _add_suv(parser)
    parser.add_argument(
        "--patients",
        metavar="HOW",
        help="where the files do not tell patients apart: FILE.csv (columns StudyInstanceUID or folder, and patient), "
        "per-study or as-named",
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
    """Convert and say what was written; 3 where some studies could not be converted."""
    from nndet_psma.dataset.convert.dicom import convert_dicom
    from nndet_psma.dataset.task.paths import TaskPaths, data_root

    check_task_name(args.task, args.name)
    source = _source(args)
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
    for case_id, notes in done.notes.items():
        for note in notes:
            print(f"{case_id}: {note}")
    print(f"{paths.root}: {len(done.training)} training cases, {len(done.test)} test cases,", end=" ")
    print(f"{done.num_lesions} lesions; {len(done.skipped)} cases were finished before")
    if source.lesion_rois:
        print(f"Next: nndet_psma check {args.task} --full")
    else:
        print(
            f"Without labels, for prediction: nndet_predict MODEL_TASK MODEL -i {paths.images('Ts')} -o FOLDER"
        )
    for failure in done.failures:
        sys.stderr.write(f"not converted: {' '.join(str(failure).split())}\n")
    return EXIT_SOME_FAILED if done.failures else 0


def _source(args: argparse.Namespace) -> DicomSource:
    from nndet_psma.dataset.convert.dicom import DicomSource
    from nndet_psma.dataset.dicom.contours import ContourRules
    from nndet_psma.dataset.dicom.studies import Choice
    from nndet_psma.dataset.dicom.suv import SuvGiven

    return DicomSource(
        folders=tuple(args.folders),
        modalities=None if args.modalities is None else tuple(args.modalities),
        lesion_rois=tuple(args.lesion_roi),
        ctv_roi=args.ctv_roi,
        mask_rois=dict(args.mask_roi),
        class_name=args.class_name,
        allow_empty=args.allow_empty,
        choice=Choice(args.b_value, dict(args.series), args.accept_derived),
        structure_set=args.structure_set,
        rules=ContourRules(args.contour_gaps or "ask", args.inner_contours or "ask"),
        suv=SuvGiven(factor=args.suv_factor, dose_mbq=args.dose, weight_kg=args.weight),
        injected_at=args.injected_at,
        patients=args.patients,
    )


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
        "--structure-set",
        metavar="PATTERN",
        help="label or file name of the structure sets that count, or 'newest' (default: all)",
    )
    group.add_argument(
        "--contour-gaps",
        choices=("interpolate", "separate"),
        help="slices without a contour between two that lie over each other (default: interpolate between contours "
        "on every second, third ... slice, refuse other gaps)",
    )
    group.add_argument(
        "--inner-contours",
        choices=("hole", "filled"),
        help="a closed contour inside another one (default: refuse; keyholes and CLOSEDPLANAR_XOR are holes)",
    )
    group.add_argument(
        "--class", dest="class_name", default="lesion", metavar="NAME", help="class of the lesions"
    )
    group.add_argument(
        "--allow-empty",
        action="store_true",
        help="a study without lesion structure is a case without lesions",
    )


def _add_suv(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "SUV", "what the header of the PET of one study gets wrong; later runs remember it"
    )
    group.add_argument("--dose", type=float, metavar="MBQ", help="that was injected, MBq")
    group.add_argument("--weight", type=float, metavar="KG", help="of the patient, kg")
    group.add_argument(
        "--injected-at",
        metavar="TIME",
        help="HH:MM[:SS] in the clock of the scanner, or 'YYYY-MM-DD HH:MM[:SS]' with the date of the file",
    )
    group.add_argument(
        "--suv-factor",
        type=float,
        metavar="F",
        help="from the values of the file (after its slope) to SUV, in place of all else",
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
