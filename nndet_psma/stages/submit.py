"""Stage submit: predictions in the forms that challenges and other tools read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nndet_psma import __version__
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.artifacts.results import Call, Judged, Result
from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.atomic import write_json
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import original_geometry
from nndet_psma.dataset.task.cases import IMAGE_SUFFIXES
from nndet_psma.hosts.boxes_pkl.files import (
    BOXES_SUFFIX,
    CORNERS,
    read_nndetection_boxes,
    write_nndetection_boxes,
)
from nndet_psma.submission.coco import write_coco
from nndet_psma.submission.foreign_boxes import foreign_prediction
from nndet_psma.submission.forms import SubmittedCase, Which, choose, class_names
from nndet_psma.submission.judgements import (
    number_of_judgements,
    write_judgements_csv,
    write_judgements_json,
)
from nndet_psma.submission.maps import Shape, write_detection_maps, write_label_maps
from nndet_psma.submission.tables import (
    write_boxes_json,
    write_lesion_tables,
    write_luna_tables,
)
from nndet_psma.systems.system import SYSTEMS

JSON_SUFFIX = "_boxes.json"
INDEX = "submission.json"

_RANKED: Which = "candidates"
_ACCEPTED: Which = "lesions"


@dataclass(frozen=True)
class SubmitJob:
    """What to hand over.

    Attributes:
        predictions: results of one type, one per case.
        format: a key of :data:`FORMATS`.
        target: folder to write to.
        which: ``lesions`` or ``candidates``; None takes what the format is for. This and what follows is of boxes.
        score_threshold: leave out what scores less.
        max_per_case: keep this many of the best.
        classes: names by class index; those of the lesions when empty.
        suffix: of maps.
        shape: of lesions in maps.
    """

    predictions: Sequence[Result]
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
        told: what they hold, in words.
        cases: boxes as handed over; empty for judgements.
        lost: by case, lesions that a map has no voxel for.
    """

    files: list[Path]
    told: str
    cases: list[SubmittedCase] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _BoxFormat:
    """Boxes that a format is for, and its writer."""

    which: Which
    write: Callable[[SubmitJob, list[SubmittedCase]], tuple[list[Path], dict[str, int]]]
    kinds: tuple[type[Result], ...] = (Prediction,)

    def submit(self, job: SubmitJob) -> Submission:
        which = job.which or self.which
        predictions = [each for each in job.predictions if isinstance(each, Prediction)]
        cases = choose(predictions, which, score_threshold=job.score_threshold, max_per_case=job.max_per_case)
        files, lost = self.write(job, cases)
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
        total = sum(len(case.lesions) for case in cases)
        return Submission([*files, job.target / INDEX], f"{total} lesions of {len(cases)} cases", cases, lost)


@dataclass(frozen=True)
class _JudgementFormat:
    """The writer of a form of judgements."""

    write: Callable[[Path, Sequence[Judged | Call]], list[Path]]
    which: None = None
    kinds: tuple[type[Result], ...] = (Judged, Call)

    def submit(self, job: SubmitJob) -> Submission:
        if job.which is not None or job.score_threshold > 0 or job.max_per_case is not None:
            raise UserError(
                "boxes are chosen by score; judgements are all handed over",
                remedy="Leave --boxes, --score_threshold and --max_per_case out",
            )
        found = (each for each in job.predictions if isinstance(each, Judged | Call))
        results = sorted(found, key=lambda result: result.case_id)
        files = self.write(job.target, results)
        counts = {result.case_id: number_of_judgements(result) for result in results}
        index = {
            "format": job.format,
            "package_version": __version__,
            "cases": [{"case_id": case_id, "judgements": amount} for case_id, amount in counts.items()],
        }
        write_json(job.target / INDEX, index)
        told = f"{sum(counts.values())} judgements of {len(counts)} cases"
        return Submission([*files, job.target / INDEX], told)


def submit(job: SubmitJob) -> Submission:
    """Write one form of the predictions into a folder, and ``submission.json``, which says what was chosen.

    Raises:
        UserError: unknown format or one for results of another type, no predictions, a case twice, or a limit that
            makes no sense.
    """
    _check(job)
    return FORMATS[job.format].submit(job)


def read_submitted(
    folder: Path, classes: Mapping[int, str] | None = None, kind: type[Result] | None = None
) -> Sequence[Result]:
    """All results in a folder.

    Args:
        folder: of predictions.
        classes: names by class index, for nnDetection's files.
        kind: type of the results; None looks which of the installed systems' types lie there.

    Raises:
        UserError: none is there, several types are, or a file cannot be read.
    """
    kinds = [kind] if kind is not None else _kinds_in(folder)
    if len(kinds) > 1:
        raise UserError(
            "holds results of several types",
            file=folder,
            found=", ".join(each.suffix for each in kinds),
            remedy="Keep the results of one system in the folder",
        )
    if not kinds or kinds[0] is Prediction:
        return read_predictions(folder, classes)
    files = sorted(folder.glob(f"*{kinds[0].suffix}"))
    if not files:
        raise UserError("holds no predictions", file=folder, expected=f"files *{kinds[0].suffix}")
    return [kinds[0].read(file) for file in files]


def _kinds_in(folder: Path) -> list[type[Result]]:
    """Types of results that a folder holds, told by the names of its files; of one suffix only the first type."""
    known: list[type[Result]] = [Prediction, Judged, Call, *(SYSTEMS[name].result_type for name in SYSTEMS)]
    by_suffix = {kind.suffix: kind for kind in reversed(known)}
    return [kind for suffix, kind in by_suffix.items() if any(folder.glob(f"*{suffix}"))]


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
    order: Sequence[str] = CORNERS,
    predicted_at: Sequence[float] | None = None,
) -> list[Prediction]:
    """Predictions from folders of nnDetection's ``*_boxes.pkl``; several folders vote, case by case.

    Args:
        folders: one per nnDetection model.
        images: folder of the images, for files that do not tell their grid, and to check those that do.
        classes: names by class index.
        score_threshold: of accepted lesions.
        vote_iou: IoU from which on two models agree.
        min_votes: models that must agree on a lesion.
        order: what the columns of the boxes are, a permutation of ``CORNERS``.
        predicted_at: spacing (z, y, x) in mm that the models predicted at, their plan's target spacing; None: that
            of the images.

    Raises:
        UserError: no files, a case is missing in a folder, no order, or a file is refused.
    """
    if not 1 <= min_votes <= len(folders):
        raise UserError(f"{min_votes} votes needed", expected=f"from 1 to the {len(folders)} models")
    if sorted(order) != sorted(CORNERS):
        raise UserError(
            "no order of corners", expected=f"each of {','.join(CORNERS)} once", found=",".join(order)
        )
    for what, given in (
        ("folder", [str(folder.resolve()) for folder in folders]),
        ("class", list(classes.values())),
    ):
        twice = next((name for name in given if given.count(name) > 1), None)
        if twice is not None:
            raise UserError(
                f"a {what} is named twice", found=twice, remedy="A model votes once, classes have own names"
            )
    names = [_case_names(folder) for folder in folders]
    for folder, other in zip(folders[1:], names[1:], strict=True):
        if other != names[0]:
            different = sorted(set(other) ^ set(names[0]))[0]
            raise UserError(
                f"case {different} is not in every folder",
                file=folder,
                remedy="Predict the same cases with every model",
            )
    return [
        foreign_prediction(
            [
                read_nndetection_boxes(folder / f"{case_id}{BOXES_SUFFIX}", order, predicted_at=predicted_at)
                for folder in folders
            ],
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
    kinds = FORMATS[job.format].kinds
    foreign = next((each for each in job.predictions if not isinstance(each, kinds)), None)
    if foreign is not None:
        fitting = [name for name, form in FORMATS.items() if isinstance(foreign, form.kinds)]
        raise UserError(
            f"format '{job.format}' cannot hold results of the type {type(foreign).__name__}",
            expected=f"one of {', '.join(fitting)}" if fitting else "another type of result",
        )
    if not job.predictions:
        raise UserError("there are no predictions to submit", remedy="Run nndet_predict first")
    ids = [prediction.case_id for prediction in job.predictions]
    twice = sorted({case_id for case_id in ids if ids.count(case_id) > 1})
    if twice:
        raise UserError(f"case {twice[0]} is there twice", remedy="Keep one of its files")
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


FORMATS: dict[str, _BoxFormat | _JudgementFormat] = {
    "boxes-json": _BoxFormat(_ACCEPTED, lambda job, cases: (write_boxes_json(job.target, cases), {})),
    "lesions-csv": _BoxFormat(_ACCEPTED, lambda job, cases: (write_lesion_tables(job.target, cases), {})),
    "luna-csv": _BoxFormat(_RANKED, lambda job, cases: (write_luna_tables(job.target, cases), {})),
    "detection-map": _BoxFormat(
        _RANKED,
        lambda job, cases: write_detection_maps(job.target, cases, suffix=job.suffix, shape=job.shape),
    ),
    "label-map": _BoxFormat(
        _ACCEPTED,
        lambda job, cases: write_label_maps(job.target, cases, suffix=job.suffix, shape=job.shape),
    ),
    "coco-json": _BoxFormat(
        _RANKED,
        lambda job, cases: (write_coco(job.target, cases, dict(job.classes) or class_names(cases)), {}),
    ),
    "nndet-pkl": _BoxFormat(_RANKED, _nndet_files),
    "judgements-csv": _JudgementFormat(write_judgements_csv),
    "judgements-json": _JudgementFormat(write_judgements_json),
}
"""By name: which results a format is for, and its writer."""
