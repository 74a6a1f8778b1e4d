"""The per-case record: the little that has to be kept of a case so that every score can be computed from it.

Scores, subsets, curves, tables and bootstraps derive from records alone; images, masks and predictions are not opened
again. A record is plain data: ``write_json(file, to_plain(record))`` and ``from_plain(CaseRecord, read_json(file))``.

Matches do not depend on a score threshold (see :mod:`nndet_psma.evaluation.matching`), so one list per IoU is enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.boxes import Boxes, box_sizes, boxes_from_instances, empty_boxes
from nndet_psma.core.detections import Detections
from nndet_psma.core.errors import UserError
from nndet_psma.evaluation.matching import claim_greedy, class_overlaps

DEFAULT_IOUS = (0.10, 0.15, 0.20, 0.25, 0.30, 0.35, 0.40, 0.45, 0.50)
"""IoU thresholds that every score of :mod:`nndet_psma.evaluation.scores` needs."""


@dataclass(frozen=True)
class Truth:
    """What is really there in one case, on the grid of the detections.

    Attributes:
        labels: ``[L]`` class index of each lesion.
        boxes: ``[L, 6]`` boxes of the lesions, voxel edges (z0, y0, x0, z1, y1, x1).
        slice_indices: ``[S]`` axial slice (z) of each 2D box; a lesion has one 2D box on every slice it touches.
        slice_lesions: ``[S]`` row of ``boxes`` that the 2D box belongs to.
        slice_boxes: ``[S, 4]`` voxel edges (y0, x0, y1, x1).
        num_slices: axial slices of the case; slice indices lie in ``[0, num_slices)``.
        volumes_mm3: ``[L]`` volumes, if known.
        short_axes_mm: ``[L]`` short axes, if measured.
        spacing: mm along (z, y, x), if known.

    Raises:
        ValueError: lengths differ, or an index points outside.
    """

    labels: NDArray[np.int64]
    boxes: Boxes
    slice_indices: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    slice_lesions: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    slice_boxes: Boxes = field(default_factory=lambda: empty_boxes(2))
    num_slices: int = 0
    volumes_mm3: Sequence[float] | None = None
    short_axes_mm: Sequence[float] | None = None
    spacing: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.labels), len(self.boxes)}
        lengths |= {len(column) for column in (self.volumes_mm3, self.short_axes_mm) if column is not None}
        if len(lengths) != 1:
            raise ValueError(f"lesion columns have different lengths: {sorted(lengths)}")
        if not len(self.slice_indices) == len(self.slice_lesions) == len(self.slice_boxes):
            raise ValueError("slice_indices, slice_lesions and slice_boxes have different lengths")
        _check_range("slice_indices", self.slice_indices, self.num_slices)
        _check_range("slice_lesions", self.slice_lesions, len(self.boxes))


@dataclass(frozen=True)
class LesionRecord:
    """One lesion: class index, 3D box (voxel edges, z, y, x), volume, short axis, box extents (z, y, x) in mm."""

    label: int
    box: tuple[float, ...]
    volume_mm3: float | None = None
    short_axis_mm: float | None = None
    extents_mm: tuple[float, ...] | None = None


@dataclass(frozen=True)
class PredictionRecord:
    """One predicted 3D box."""

    score: float
    label: int
    box: tuple[float, ...]


@dataclass(frozen=True)
class SlicePrediction:
    """One predicted 2D box (y0, x0, y1, x1) and the lesions whose box on that slice it hits."""

    slice_index: int
    score: float
    label: int
    box: tuple[float, ...]
    hits: tuple[int, ...]


@dataclass(frozen=True)
class SliceTruth:
    """2D box (y0, x0, y1, x1) of lesion ``lesion`` on one slice."""

    slice_index: int
    lesion: int
    box: tuple[float, ...]


@dataclass(frozen=True)
class SliceRecord:
    """What the slice-wise protocol needs: slices examined, IoU of a hit, 2D predictions and 2D truth."""

    num_slices: int
    iou: float
    predictions: tuple[SlicePrediction, ...]
    truth: tuple[SliceTruth, ...]


@dataclass(frozen=True)
class CaseRecord:
    """One case reduced to lesions, predictions and who found whom.

    Attributes:
        case_id: name of the case.
        patient_id: cases of one patient are resampled together.
        lesions: rows of the truth.
        predictions: 3D predictions, best score first.
        matches: IoU threshold with two decimals ("0.10") to the lesion claimed by each prediction, -1 for none.
        slices: the slice-wise part; None when there were no slice-wise detections to examine.
    """

    case_id: str
    patient_id: str
    lesions: tuple[LesionRecord, ...]
    predictions: tuple[PredictionRecord, ...]
    matches: dict[str, tuple[int, ...]]
    slices: SliceRecord | None = None

    def claims(self, iou: float) -> tuple[int, ...]:
        """Lesion claimed by each prediction at ``iou``, -1 for none.

        Raises:
            ValueError: the case was not matched at ``iou``.
        """
        if iou_key(iou) not in self.matches:
            known = ", ".join(self.matches)
            raise ValueError(f"{self.case_id}: not matched at IoU {iou_key(iou)}, only at {known}")
        return self.matches[iou_key(iou)]


def iou_key(iou: float) -> str:
    """Key of an IoU threshold in ``CaseRecord.matches``, as nnDetection spells it: ``0.10``."""
    return f"{iou:.2f}"


def build_record(
    case_id: str,
    patient_id: str,
    truth: Truth,
    detections: Detections,
    slice_detections: Detections | None = None,
    *,
    ious: Sequence[float] = DEFAULT_IOUS,
    slice_iou: float = 0.1,
) -> CaseRecord:
    """Match the detections of one case with its truth.

    Args:
        case_id: name of the case.
        patient_id: patient it belongs to.
        truth: lesions on the same grid as the detections.
        detections: 3D boxes.
        slice_detections: 2D boxes with the column ``slice``; None when the system makes none.
        ious: IoU thresholds, two decimals.
        slice_iou: IoU of a slice-wise hit (tau3 of the paper).

    Raises:
        ValueError: a score or coordinate is not finite, boxes have the wrong dimension, a slice lies outside, or
            an IoU has more than two decimals.
    """
    _check_finite(case_id, detections, dim=3)
    if any(abs(iou - float(iou_key(iou))) > 1e-9 for iou in ious):
        raise ValueError(f"IoU thresholds are named with two decimals, got {list(ious)}")
    ranked = detections.sorted_by_score()
    overlaps = class_overlaps(ranked.boxes, ranked.labels, truth.boxes, truth.labels)
    # the threshold is the decimal that the key names: linspace's 0.15000000000000002 would refuse an IoU of 3/20
    matches = {
        iou_key(iou): tuple(claim_greedy(overlaps, ranked.scores, iou=float(iou_key(iou))).tolist())
        for iou in ious
    }
    return CaseRecord(
        case_id,
        patient_id,
        _lesion_records(truth),
        tuple(
            PredictionRecord(float(score), int(label), tuple(box.tolist()))
            for score, label, box in zip(ranked.scores, ranked.labels, ranked.boxes, strict=True)
        ),
        matches,
        None if slice_detections is None else _slice_record(case_id, truth, slice_detections, slice_iou),
    )


def truth_from_instances(
    instances: NDArray,
    classes: Mapping[int, int],
    spacing: tuple[float, float, float],
    *,
    short_axes_mm: Mapping[int, float] | None = None,
) -> Truth:
    """Truth of a case from its instance mask; lesions in ascending order of their ids.

    A lesion in several pieces on one slice gets one 2D box round all of them.

    Args:
        instances: integers ``[z, y, x]``, 0 = background.
        classes: instance id to class index.
        spacing: mm along (z, y, x).
        short_axes_mm: instance id to its short axis, if measured.

    Raises:
        UserError: an instance of the mask has no class, or an instance with a class is not in the mask.
    """
    ids, boxes = boxes_from_instances(instances)
    if set(ids.tolist()) != set(classes):
        raise UserError(
            "instances of the mask and of the class table differ",
            expected=f"ids {sorted(classes)}",
            found=f"ids {ids.tolist()} in the mask",
            remedy="Correct the case's .json or its label image",
        )
    volumes, slice_rows, slice_boxes = [], [], []
    for row, (instance, box) in enumerate(zip(ids, boxes.astype(int), strict=True)):
        crop = instances[box[0] : box[3], box[1] : box[4], box[2] : box[5]] == instance
        volumes.append(float(crop.sum() * np.prod(spacing)))
        for z in np.flatnonzero(crop.any(axis=(1, 2))):
            flat_box = boxes_from_instances(crop[z].astype(np.uint8))[1][0]
            slice_rows.append((box[0] + z, row))
            slice_boxes.append(flat_box + box[[1, 2, 1, 2]])
    rows = np.array(slice_rows, dtype=np.int64).reshape(-1, 2)
    return Truth(
        labels=np.array([classes[int(instance)] for instance in ids], dtype=np.int64),
        boxes=boxes,
        slice_indices=rows[:, 0],
        slice_lesions=rows[:, 1],
        slice_boxes=np.array(slice_boxes, dtype=np.float64).reshape(-1, 4),
        num_slices=instances.shape[0],
        volumes_mm3=volumes,
        short_axes_mm=None if short_axes_mm is None else [short_axes_mm[int(instance)] for instance in ids],
        spacing=spacing,
    )


def _lesion_records(truth: Truth) -> tuple[LesionRecord, ...]:
    extents = None if truth.spacing is None else box_sizes(truth.boxes) * np.array(truth.spacing)
    return tuple(
        LesionRecord(
            int(label),
            tuple(box.tolist()),
            None if truth.volumes_mm3 is None else float(truth.volumes_mm3[row]),
            None if truth.short_axes_mm is None else float(truth.short_axes_mm[row]),
            None if extents is None else tuple(extents[row].tolist()),
        )
        for row, (label, box) in enumerate(zip(truth.labels, truth.boxes, strict=True))
    )


def _slice_record(case_id: str, truth: Truth, detections: Detections, iou: float) -> SliceRecord:
    if not 0 < iou <= 1:
        raise ValueError(f"the IoU of a slice-wise hit must lie in (0, 1], got {iou}")
    _check_finite(case_id, detections, dim=2)
    slices = np.asarray(detections.columns["slice"], dtype=np.int64)
    _check_range(f"{case_id}: slices of the detections", slices, truth.num_slices)
    overlaps = class_overlaps(
        detections.boxes, detections.labels, truth.slice_boxes, truth.labels[truth.slice_lesions]
    )
    hits = (overlaps >= iou) & (slices[:, None] == truth.slice_indices[None, :])
    predictions = tuple(
        SlicePrediction(
            int(slices[row]),
            float(detections.scores[row]),
            int(detections.labels[row]),
            tuple(detections.boxes[row].tolist()),
            tuple(np.unique(truth.slice_lesions[hits[row]]).tolist()),
        )
        for row in range(len(detections))
    )
    rows = zip(truth.slice_indices, truth.slice_lesions, truth.slice_boxes, strict=True)
    flat_truth = tuple(SliceTruth(int(z), int(lesion), tuple(box.tolist())) for z, lesion, box in rows)
    return SliceRecord(int(truth.num_slices), iou, predictions, flat_truth)


def _check_finite(case_id: str, detections: Detections, dim: int) -> None:
    if detections.dim != dim:
        raise ValueError(f"{case_id}: expected {dim}D boxes, got {detections.dim}D")
    if not (np.isfinite(detections.scores).all() and np.isfinite(detections.boxes).all()):
        raise ValueError(f"{case_id}: a score or a box coordinate is not a finite number")


def _check_range(name: str, values: NDArray[np.int64], limit: int) -> None:
    if len(values) and not (values.min() >= 0 and values.max() < limit):
        raise ValueError(f"{name} must lie in [0, {limit}), got {values.min()} to {values.max()}")
