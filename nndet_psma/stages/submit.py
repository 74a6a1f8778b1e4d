"""Stage submit: predictions in the forms that challenges and other tools read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nndet_psma import __version__
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.atomic import write_json
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import original_geometry
from nndet_psma.dataset.task.cases import IMAGE_SUFFIXES
from nndet_psma.hosts.boxes_pkl.files import (
    BOXES_SUFFIX,
    read_nndetection_boxes,
    write_nndetection_boxes,
)
from nndet_psma.submission.coco import write_coco
from nndet_psma.submission.foreign_boxes import foreign_prediction
from nndet_psma.submission.forms import SubmittedCase, Which, choose, class_names
from nndet_psma.submission.maps import Shape, write_detection_maps, write_label_maps
from nndet_psma.submission.tables import (
    write_boxes_json,
    write_lesion_tables,
    write_luna_tables,
)

JSON_SUFFIX = "_boxes.json"
INDEX = "submission.json"

_RANKED: Which = "candidates"
_ACCEPTED: Which = "lesions"


@dataclass(frozen=True)
class SubmitJob:
    """What to hand over.

    Attributes:
        predictions: one per case.
        format: a key of :data:`FORMATS`.
        target: folder to write to.
        which: ``lesions`` or ``candidates``; None takes what the format is for.
        score_threshold: leave out what scores less.
        max_per_case: keep this many of the best.
        classes: names by class index; those of the lesions when empty.
        suffix: of maps.
        shape: of lesions in maps.
    """

    predictions: Sequence[Prediction]
    format: str
    target: Path
    which: Which | None = None
    score_threshold: float = 0.0
    max_per_case: int | None = None
    classes: Mapping[int, str] = field(default_factory=dict)
    suffix: str = ".nii.gz"
    shape: Shape = "box"


@dataclass(frozen=True)
class Submission:
    """What was written.

    Attributes:
        files: all of them, ``submission.json`` last.
        cases: as handed over.
        lost: by case, lesions that a map has no voxel for.
    """

    files: list[Path]
    cases: list[SubmittedCase]
    lost: dict[str, int]


@dataclass(frozen=True)
class _Format:
    which: Which
    write: Callable[[SubmitJob, list[SubmittedCase]], tuple[list[Path], dict[str, int]]]


def submit(job: SubmitJob) -> Submission:
    """Write one form of the predictions into a folder, and ``submission.json``, which says what was chosen.

    Raises:
        UserError: unknown format, no predictions, a case twice, or a limit that makes no sense.
    """
    _check(job)
    form = FORMATS[job.format]
    which = job.which or form.which
    cases = choose(job.predictions, which, score_threshold=job.score_threshold, max_per_case=job.max_per_case)
    files, lost = form.write(job, cases)
    index = {
        "format": job.format,
        "boxes": which,
        "score_threshold": job.score_threshold,
        "max_per_case": job.max_per_case,
        "package_version": __version__,
        "cases": [{"case_id": case.case_id, "lesions": len(case.lesions)} for case in cases],
        "lesions_without_a_voxel": lost,
    }
    write_json(job.target / INDEX, index)
    return Submission([*files, job.target / INDEX], cases, lost)


def read_predictions(folder: Path, classes: Mapping[int, str] | None = None) -> list[Prediction]:
    """All ``*_boxes.json`` of a folder; where there are none, nnDetection's ``*_boxes.pkl``, read safely.

    Raises:
        UserError: neither is there, or a file cannot be read.
    """
    files = sorted(folder.glob(f"*{JSON_SUFFIX}"))
    if files:
        return [Prediction.read(file) for file in files]
    return convert_nndetection([folder], classes=classes or {})


def convert_nndetection(
    folders: Sequence[Path],
    *,
    images: Path | None = None,
    classes: Mapping[int, str],
    score_threshold: float = 0.5,
    vote_iou: float = 0.5,
    min_votes: int = 1,
) -> list[Prediction]:
    """Predictions from folders of nnDetection's ``*_boxes.pkl``; several folders vote, case by case.

    Args:
        folders: one per nnDetection model.
        images: folder of the images, for files that do not tell their grid, and to check those that do.
        classes: names by class index.
        score_threshold: of accepted lesions.
        vote_iou: IoU from which on two models agree.
        min_votes: models that must agree on a lesion.

    Raises:
        UserError: no files, a case is missing in a folder, or a file is refused.
    """
    if not 1 <= min_votes <= len(folders):
        raise UserError(f"{min_votes} votes needed", expected=f"from 1 to the {len(folders)} models")
    names = [_case_names(folder) for folder in folders]
    for folder, other in zip(folders[1:], names[1:], strict=True):
        if other != names[0]:
            different = sorted(set(other) ^ set(names[0]))[0]
            raise UserError(f"case {different} is not in every folder", file=folder)
    return [
        foreign_prediction(
            [read_nndetection_boxes(folder / f"{case_id}{BOXES_SUFFIX}") for folder in folders],
            classes,
            image=None if images is None else _image_grid(images, case_id),
            score_threshold=score_threshold,
            vote_iou=vote_iou,
            min_votes=min_votes,
        )
        for case_id in names[0]
    ]


def _case_names(folder: Path) -> list[str]:
    files = sorted(folder.glob(f"*{BOXES_SUFFIX}"))
    if not files:
        raise UserError(
            "holds no predictions",
            file=folder,
            expected=f"files *{JSON_SUFFIX}, or *{BOXES_SUFFIX} of nnDetection",
        )
    return [file.name.removesuffix(BOXES_SUFFIX) for file in files]


def _image_grid(images: Path, case_id: str) -> Geometry:
    names = [f"{case_id}{number}{suffix}" for number in ("_0000", "") for suffix in IMAGE_SUFFIXES]
    for name in names:
        if (images / name).is_file():
            return original_geometry(images / name)
    raise UserError(f"no image of case {case_id}", file=images, expected=names[0])


def _check(job: SubmitJob) -> None:
    if job.format not in FORMATS:
        raise UserError(f"unknown format '{job.format}'", expected=f"one of {', '.join(FORMATS)}")
    if not job.predictions:
        raise UserError("there are no predictions to submit", remedy="Run nndet_predict first")
    ids = [prediction.case_id for prediction in job.predictions]
    twice = sorted({case_id for case_id in ids if ids.count(case_id) > 1})
    if twice:
        raise UserError(f"case {twice[0]} is there twice")
    if not 0 <= job.score_threshold <= 1 or (job.max_per_case is not None and job.max_per_case < 1):
        raise UserError(
            "limits that make no sense",
            expected="a score threshold in [0, 1] and at least one lesion per case",
            found=f"{job.score_threshold}, {job.max_per_case}",
        )


def _nndet_files(job: SubmitJob, cases: list[SubmittedCase]) -> tuple[list[Path], dict[str, int]]:
    files = []
    for case in cases:
        detections = Detections.build(
            case.boxes,
            np.array([lesion.score for lesion in case.lesions]),
            np.array([lesion.label for lesion in case.lesions]),
        )
        files.append(job.target / f"{case.case_id}{BOXES_SUFFIX}")
        write_nndetection_boxes(files[-1], detections, case.image)
    return files, {}


FORMATS: dict[str, _Format] = {
    "boxes-json": _Format(_ACCEPTED, lambda job, cases: (write_boxes_json(job.target, cases), {})),
    "lesions-csv": _Format(_ACCEPTED, lambda job, cases: (write_lesion_tables(job.target, cases), {})),
    "luna-csv": _Format(_RANKED, lambda job, cases: (write_luna_tables(job.target, cases), {})),
    "detection-map": _Format(
        _RANKED,
        lambda job, cases: write_detection_maps(job.target, cases, suffix=job.suffix, shape=job.shape),
    ),
    "label-map": _Format(
        _ACCEPTED,
        lambda job, cases: write_label_maps(job.target, cases, suffix=job.suffix, shape=job.shape),
    ),
    "coco-json": _Format(
        _RANKED,
        lambda job, cases: (write_coco(job.target, cases, dict(job.classes) or class_names(cases)), {}),
    ),
    "nndet-pkl": _Format(_RANKED, _nndet_files),
}
"""By name: which boxes a format is for, and its writer."""
