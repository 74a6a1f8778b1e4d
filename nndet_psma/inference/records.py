"""Evaluation records of predicted cases: truth and prediction brought onto the canonical grid of the label file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.prediction import PredictedLesion, Prediction
from nndet_psma.boxes.box import Boxes, empty_boxes
from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.geometry import Geometry, map_boxes
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.dataset.task.instances import read_labels
from nndet_psma.evaluation.detection.record import CaseRecord, Truth, build_record, truth_from_instances
from nndet_psma.postproc.steps.box_slicing import covered_centres


def read_truth(case: RawCase, description: DatasetDescription) -> tuple[Truth, Geometry]:
    """Lesions of a labelled case and the canonical grid they are given on."""
    labels, classes = read_labels(case, description)
    return truth_from_instances(labels.array, classes, labels.geometry.spacing), labels.geometry


def make_record(
    prediction: Prediction, truth: Truth, grid: Geometry, patient_id: str, *, slice_iou: float
) -> CaseRecord:
    """Record of one case.

    What ranks (AP, FROC, operating points, and the AUC of images and patients) sees ``prediction.candidates``; what
    judges a choice sees ``prediction.lesions``: their boxes in 3D, and the paper's protocol their slice boxes. Its
    images are the axial slices that were examined, hold a lesion or have a box.
    """
    slices = _slice_detections(prediction.lesions, prediction.image, grid)
    ranked = _slice_detections(prediction.candidates, prediction.image, grid)
    examined = map_boxes(np.array([prediction.examined]), prediction.image, grid)[0]
    kept = _examined_slices(examined, truth, (slices, ranked), grid.shape[0])
    return build_record(
        prediction.case_id,
        patient_id,
        replace(truth, slice_indices=np.searchsorted(kept, truth.slice_indices), num_slices=len(kept)),
        _detections(prediction.candidates, prediction.image, grid),
        _renumbered(slices, kept),
        slice_iou=slice_iou,
        slice_candidates=_renumbered(ranked, kept),
        accepted=_detections(prediction.lesions, prediction.image, grid),
    )


def _renumbered(slices: Detections, kept: NDArray[np.int64]) -> Detections:
    return slices.with_columns(slice=np.searchsorted(kept, slices.columns["slice"]))


def _detections(lesions: list[PredictedLesion], image: Geometry, grid: Geometry) -> Detections:
    boxes = np.array([lesion.box for lesion in lesions]) if lesions else empty_boxes(3)
    return Detections.build(
        map_boxes(boxes, image, grid),
        [lesion.score for lesion in lesions],
        [lesion.label for lesion in lesions],
        dim=3,
    )


def _slice_detections(lesions: list[PredictedLesion], image: Geometry, grid: Geometry) -> Detections:
    parts = [(s, lesion.label) for lesion in lesions for s in lesion.slices]
    owner = [index for index, lesion in enumerate(lesions) for _ in lesion.slices]
    thin = np.array([s.box for s, _ in parts]) if parts else empty_boxes(3)
    boxes = map_boxes(thin, image, grid)
    rows, slices = _covered_slices(boxes, grid.shape[0])
    once = _first_of_equals(boxes[rows], np.array(owner, dtype=np.int64)[rows], slices)
    rows, slices = rows[once], slices[once]
    return Detections.build(
        boxes[rows][:, [1, 2, 4, 5]],
        np.array([s.score for s, _ in parts])[rows] if parts else [],
        np.array([label for _, label in parts])[rows] if parts else [],
        dim=2,
        slice=slices,
    )


def _first_of_equals(boxes: Boxes, owner: NDArray[np.int64], slices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows, ascending, without the repetitions of a lesion's box on a slice.

    A lesion of a detector on volumes has the same box on each of its slices, and several slices of the store may fall
    on one of the image: that is one box there, not several.
    """
    keys = np.column_stack([owner, slices, np.round(boxes[:, [1, 2, 4, 5]], 3)])
    return np.sort(np.unique(keys, axis=0, return_index=True)[1])


def _covered_slices(boxes: Boxes, depth: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and slice index of every slice whose centre a thin box covers, by the rule of :func:`covered_centres`.

    What lies beyond the image counts on its first or last slice.
    """
    begin, end = covered_centres(boxes[:, 0], boxes[:, 3])
    begin, end = np.clip(begin, 0, depth - 1), np.clip(end, 1, depth)
    count = np.maximum(end - begin, 1)
    rows = np.repeat(np.arange(len(boxes)), count)
    step = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    return rows, begin[rows] + step


def _examined_slices(
    examined: Boxes, truth: Truth, found: Sequence[Detections], depth: int
) -> NDArray[np.int64]:
    inside = np.arange(max(0, round(examined[0])), min(depth, round(examined[3])))
    with_box = [each.columns["slice"] for each in found]
    return np.unique(np.concatenate([inside, truth.slice_indices, *with_box])).astype(np.int64)
