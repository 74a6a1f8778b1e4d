"""Evaluation records of predicted cases: truth and prediction brought onto the canonical grid of the label file."""

from __future__ import annotations

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


def read_truth(case: RawCase, description: DatasetDescription) -> tuple[Truth, Geometry]:
    """Lesions of a labelled case and the canonical grid they are given on."""
    labels, classes = read_labels(case, description)
    return truth_from_instances(labels.array, classes, labels.geometry.spacing), labels.geometry


def make_record(
    prediction: Prediction, truth: Truth, grid: Geometry, patient_id: str, *, slice_iou: float
) -> CaseRecord:
    """Record of one case.

    AP, FROC and operating points rank ``prediction.candidates``; the paper's protocol judges the slice boxes of
    ``prediction.lesions``. Its images are the axial slices that were examined or hold a lesion.
    """
    boxes = map_boxes(_boxes(prediction.candidates), prediction.image, grid)
    detections = Detections.build(
        boxes, [c.score for c in prediction.candidates], [c.label for c in prediction.candidates]
    )
    slices = _slice_detections(prediction, grid)
    examined = map_boxes(np.array([prediction.examined]), prediction.image, grid)[0]
    kept = _examined_slices(examined, truth, slices, grid.shape[0])
    return build_record(
        prediction.case_id,
        patient_id,
        replace(truth, slice_indices=np.searchsorted(kept, truth.slice_indices), num_slices=len(kept)),
        detections,
        slices.with_columns(slice=np.searchsorted(kept, slices.columns["slice"])),
        slice_iou=slice_iou,
    )


def _boxes(lesions: list[PredictedLesion]) -> Boxes:
    return np.array([lesion.box for lesion in lesions]) if lesions else empty_boxes(3)


def _slice_detections(prediction: Prediction, grid: Geometry) -> Detections:
    parts = [(s, lesion.label) for lesion in prediction.lesions for s in lesion.slices]
    owner = [index for index, lesion in enumerate(prediction.lesions) for _ in lesion.slices]
    thin = np.array([s.box for s, _ in parts]) if parts else empty_boxes(3)
    boxes = map_boxes(thin, prediction.image, grid)
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
    """Row and slice index of every slice whose centre a thin box covers; the nearest one where it covers none."""
    rows, slices = [], []
    for row, (low, high) in enumerate(boxes[:, [0, 3]]):
        covered = np.arange(np.ceil(low - 0.5 - 1e-6), np.floor(high - 0.5 - 1e-6) + 1)
        if len(covered) == 0:
            covered = np.array([np.floor((low + high) / 2)])
        covered = np.unique(np.clip(covered, 0, depth - 1)).astype(np.int64)
        rows += [row] * len(covered)
        slices += covered.tolist()
    return np.array(rows, dtype=np.int64), np.array(slices, dtype=np.int64)


def _examined_slices(examined: Boxes, truth: Truth, slices: Detections, depth: int) -> NDArray[np.int64]:
    inside = np.arange(max(0, round(examined[0])), min(depth, round(examined[3])))
    return np.unique(np.concatenate([inside, truth.slice_indices, slices.columns["slice"]])).astype(np.int64)
