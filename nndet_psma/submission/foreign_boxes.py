"""Boxes that nnDetection predicted, as predictions of this package: scored, bagged, submitted like our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nndet_psma.artifacts.prediction import PredictedLesion, Prediction, SliceBox
from nndet_psma.boxes.box import Boxes, box_centres, box_sizes, clip_boxes, reach_outside, to_nndetection
from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.logs import LOGGER
from nndet_psma.hosts.boxes_pkl.files import ForeignBoxes, refuse_boxes
from nndet_psma.inference.postprocessing import MAX_CANDIDATES
from nndet_psma.postproc.steps.bagging import window_bagging
from nndet_psma.submission.forms import axial_axis, voxel_range

UNKNOWN_REGION = "unknown"


def foreign_prediction(
    voters: Sequence[ForeignBoxes],
    classes: Mapping[int, str],
    *,
    image: Geometry | None = None,
    score_threshold: float = 0.5,
    vote_iou: float = 0.5,
    min_votes: int = 1,
) -> Prediction:
    """One case from the files of one or several nnDetection models.

    Several models vote: :func:`~nndet_psma.postproc.steps.bagging.window_bagging` on their 3D boxes. ``candidates``
    are all boxes, ranked; ``lesions`` those from the score threshold on that enough models voted for.

    Args:
        voters: the same case from every model.
        classes: names by class index; without any they are called ``class_<index>``.
        image: grid of the image file; None takes what the files say.
        score_threshold: in [0, 1].
        vote_iou: IoU from which on two models agree.
        min_votes: how many must agree.

    Raises:
        UserError: no file tells the grid, they tell different ones, a box lies outside the image, or is of a
            class without name.
        ValueError: ``min_votes`` is out of range.
    """
    grid = _grid(voters, image)
    for voter in voters:
        _check_labels(voter, classes)
    parts = [_clipped(voter, grid) for voter in voters]
    if len(parts) == 1:
        fused = parts[0].sorted_by_score().with_columns(votes=np.ones(len(parts[0]), dtype=np.int64))
    else:
        fused = window_bagging(parts, vote_iou=vote_iou, min_votes=1)
    accepted = (fused.scores >= score_threshold) & (fused.columns["votes"] >= min_votes)
    settings = [score_threshold, vote_iou, min_votes]
    content = [[part.boxes.tolist(), part.scores.tolist(), part.labels.tolist()] for part in parts]
    return Prediction(
        case_id=voters[0].case_id,
        made_from=hash_json([settings, content]),
        search_region=UNKNOWN_REGION,
        image=grid,
        examined=(0.0, 0.0, 0.0, *(float(n) for n in grid.shape)),
        lesions=_lesions(fused.select(accepted), grid, classes),
        candidates=_lesions(fused, grid, classes)[:MAX_CANDIDATES],
    )


def _grid(voters: Sequence[ForeignBoxes], image: Geometry | None) -> Geometry:
    grids = [voter.geometry for voter in voters if voter.geometry is not None]
    grids += [image] if image is not None else []
    if not grids:
        raise UserError(
            f"nothing tells the grid of case {voters[0].case_id}",
            remedy="Give the images with --images FOLDER",
        )
    for other in grids[:-1]:
        if not other.same_grid(grids[-1]):
            raise UserError(
                f"the files of case {voters[0].case_id} are of different images",
                expected=str(grids[-1]),
                found=str(other),
            )
    return grids[-1]


def _check_labels(voter: ForeignBoxes, classes: Mapping[int, str]) -> None:
    strange = sorted(set(voter.detections.labels.tolist()) - set(classes))
    if classes and strange:
        raise UserError(
            f"boxes of class {strange[0]}",
            file=voter.file,
            expected=", ".join(f"{index} ({name})" for index, name in sorted(classes.items())),
            remedy="Name all classes from 0 on (convert nndet-boxes --classes), or correct the labels",
        )


def _clipped(voter: ForeignBoxes, grid: Geometry) -> Detections:
    found = voter.detections
    outside = reach_outside(found.boxes, grid.shape)
    what = f"lies outside the image of {' x '.join(map(str, grid.shape))} voxels (z, y, x)"
    refuse_boxes(to_nndetection(found.boxes), outside, what, voter.file)
    boxes = clip_boxes(found.boxes, grid.shape)
    kept = np.asarray((box_sizes(boxes) > 0).all(axis=1))
    if not kept.all():
        LOGGER.warning(
            "%s: %d of %d boxes lie just outside the image; left out", voter.file, (~kept).sum(), len(kept)
        )
    return Detections(boxes, found.scores, found.labels).select(kept)


def _lesions(found: Detections, grid: Geometry, classes: Mapping[int, str]) -> list[PredictedLesion]:
    centres = grid.to_patient(box_centres(found.boxes)) if len(found) else np.zeros((0, 3))
    sizes = box_sizes(found.boxes) * np.array(grid.spacing)
    lesions = []
    for row, box in enumerate(found.boxes):
        label, score = int(found.labels[row]), round(float(found.scores[row]), 6)
        votes = int(found.columns["votes"][row])
        lesions.append(
            PredictedLesion(
                score=score,
                label=label,
                name=classes.get(label, f"class_{label}"),
                box=_rounded(box),
                centre_mm=_rounded(centres[row]),  # type: ignore[arg-type]
                size_mm=_rounded(sizes[row]),  # type: ignore[arg-type]
                slices=[SliceBox(thin, score, votes) for thin in _slices(box, grid)],
            )
        )
    return lesions


def _slices(box: Boxes, grid: Geometry) -> list[tuple[float, ...]]:
    """The box cut into axial slices of the image."""
    axis = axial_axis(grid)
    first, end = voxel_range(box[:3], box[3:], np.array(grid.shape))
    thin = []
    for index in range(int(first[axis]), int(end[axis])):
        part = box.copy()
        part[axis], part[axis + 3] = index, index + 1
        thin.append(_rounded(part))
    return thin


def _rounded(values: Boxes) -> tuple[float, ...]:
    return tuple(round(float(v), 4) for v in values)
