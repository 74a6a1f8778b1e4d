"""The per-case record: the little that has to be kept of a case so that every score can be computed from it.

Scores, subsets, curves, tables and bootstraps derive from records alone; images, masks and predictions are not opened
again. A record is plain data: ``write_json(file, to_plain(record))`` and ``from_plain(CaseRecord, read_json(file))``.

Matches do not depend on a score threshold (see :mod:`nndet_psma.evaluation.detection.matching`), so one list per IoU
is enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.box import box_sizes
from nndet_psma.boxes.detections import Detections
from nndet_psma.evaluation.detection.matching import HitRule, claim_at_each, class_overlaps, closeness
from nndet_psma.evaluation.detection.truth import Truth as Truth
from nndet_psma.evaluation.detection.truth import check_range
from nndet_psma.evaluation.detection.truth import truth_from_instances as truth_from_instances

DEFAULT_IOUS = (0.10, 0.15, 0.20, 0.25, 0.30, 0.35, 0.40, 0.45, 0.50)
"""IoU thresholds that every score of :mod:`nndet_psma.evaluation.detection.scores` needs."""

ACCEPTED_IOUS = (0.10,)
"""IoU thresholds at which accepted lesions are matched."""

OTHER_RULES = (HitRule("overlap", 0.1), HitRule("distance", 5.0), HitRule("centre"))
"""Kinder meanings of a hit, told beside the IoU: a small node is found although its box fits badly."""


@dataclass(frozen=True)
class LesionRecord:
    """One lesion.

    Attributes:
        label: class index.
        box: 3D box, voxel edges (z0, y0, x0, z1, y1, x1).
        volume_mm3: volume.
        short_axis_mm: in-plane short axis.
        extents_mm: sides (z, y, x) of the box.
        outside_ctv_mm: how far it reaches out of the CTV, 0 within; None without CTV.
        station: anatomical name, if given.
    """

    label: int
    box: tuple[float, ...]
    volume_mm3: float | None = None
    short_axis_mm: float | None = None
    extents_mm: tuple[float, ...] | None = None
    outside_ctv_mm: float | None = None
    station: str | None = None


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
    """What the slice-wise protocol needs.

    Attributes:
        num_slices: slices examined.
        iou: IoU of a hit.
        predictions: 2D boxes that are accepted.
        truth: 2D boxes of the lesions.
        image_scores: ``[num_slices]`` best score of any candidate on each slice, accepted or not, 0 without one; None
            in files of older versions, which knew the accepted boxes only.
    """

    num_slices: int
    iou: float
    predictions: tuple[SlicePrediction, ...]
    truth: tuple[SliceTruth, ...]
    image_scores: tuple[float, ...] | None = None


@dataclass(frozen=True)
class AcceptedRecord:
    """What the tuned thresholds accept, as lesions in 3D.

    Attributes:
        predictions: best score first.
        matches: key of a hit rule to the lesion claimed by each, -1 for none; as in :class:`CaseRecord`.
    """

    predictions: tuple[PredictionRecord, ...]
    matches: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class CaseRecord:
    """One case reduced to lesions, predictions and who found whom.

    Attributes:
        case_id: name of the case.
        patient_id: cases of one patient are resampled together.
        lesions: rows of the truth.
        predictions: 3D predictions of any score, best first.
        matches: key of a hit rule (an IoU threshold with two decimals, "0.10"; see
            :class:`~nndet_psma.evaluation.detection.matching.HitRule`) to the lesion claimed by each prediction, -1
            for none.
        slices: the slice-wise part; None when there were no slice-wise detections to examine.
        accepted: those lesions that the tuned thresholds accept; None where that is not known, as in files of older
            versions.
    """

    case_id: str
    patient_id: str
    lesions: tuple[LesionRecord, ...]
    predictions: tuple[PredictionRecord, ...]
    matches: dict[str, tuple[int, ...]]
    slices: SliceRecord | None = None
    accepted: AcceptedRecord | None = None

    def claims(self, iou: float) -> tuple[int, ...]:
        """Lesion claimed by each prediction at ``iou``, -1 for none.

        Raises:
            ValueError: the case was not matched at ``iou``.
        """
        return self.claims_by(iou_key(iou))

    def claims_by(self, key: str) -> tuple[int, ...]:
        """Lesion claimed by each prediction under the hit rule of this key, -1 for none.

        Raises:
            ValueError: the case was not matched by that rule.
        """
        if key not in self.matches:
            known = ", ".join(self.matches)
            name = f"IoU {key}" if key[0].isdigit() else key
            raise ValueError(f"{self.case_id}: not matched at {name}, only at {known}")
        return self.matches[key]


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
    rules: Sequence[HitRule] = OTHER_RULES,
    slice_candidates: Detections | None = None,
    accepted: Detections | None = None,
) -> CaseRecord:
    """Match the detections of one case with its truth.

    Args:
        case_id: name of the case.
        patient_id: patient it belongs to.
        truth: lesions on the same grid as the detections.
        detections: 3D boxes of any score.
        slice_detections: 2D boxes with the column ``slice`` that are accepted; None when the system makes none.
        ious: IoU thresholds, two decimals.
        slice_iou: IoU of a slice-wise hit (tau3 of the paper).
        rules: further hit rules; one by distance is left out when the truth has no spacing.
        slice_candidates: 2D boxes of any score with the column ``slice``; None where ``slice_detections`` are all
            there are.
        accepted: 3D boxes that are accepted; None where that is not known.

    Raises:
        ValueError: a score or coordinate is not finite, boxes have the wrong dimension, a slice lies outside, or
            an IoU has more than two decimals.
    """
    if any(abs(iou - float(iou_key(iou))) > 1e-9 for iou in ious):
        raise ValueError(f"IoU thresholds are named with two decimals, got {list(ious)}")
    predictions, matches = _matched(case_id, truth, detections, ious, rules)
    chosen = None if accepted is None else _matched(case_id, truth, accepted, ACCEPTED_IOUS, rules)
    slices = None
    if slice_detections is not None:
        candidates = slice_detections if slice_candidates is None else slice_candidates
        slices = _slice_record(case_id, truth, slice_detections, candidates, slice_iou)
    return CaseRecord(
        case_id,
        patient_id,
        _lesion_records(truth),
        predictions,
        matches,
        slices,
        None if chosen is None else AcceptedRecord(*chosen),
    )


def _matched(
    case_id: str, truth: Truth, detections: Detections, ious: Sequence[float], rules: Sequence[HitRule]
) -> tuple[tuple[PredictionRecord, ...], dict[str, tuple[int, ...]]]:
    """3D boxes, best score first, and who finds whom by every rule."""
    _check_finite(case_id, detections, dim=3)
    ranked = detections.sorted_by_score()
    overlaps = class_overlaps(ranked.boxes, ranked.labels, truth.boxes, truth.labels)
    keys = [iou_key(iou) for iou in ious]
    # the threshold is the decimal that the key names: linspace's 0.15000000000000002 would refuse an IoU of 3/20
    claims = claim_at_each(overlaps, ranked.scores, [float(key) for key in keys]).tolist()
    matches = {key: tuple(row) for key, row in zip(keys, claims, strict=True)}
    matches |= dict(_other_matches(ranked, truth, rules))
    predictions = tuple(
        PredictionRecord(float(score), int(label), tuple(box.tolist()))
        for score, label, box in zip(ranked.scores, ranked.labels, ranked.boxes, strict=True)
    )
    return predictions, matches


def _other_matches(
    ranked: Detections, truth: Truth, rules: Sequence[HitRule]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    same = ranked.labels[:, None] == truth.labels[None, :]
    for rule in rules:
        if rule.criterion != "distance" or truth.spacing is not None:
            near = np.where(same, closeness(rule, ranked.boxes, truth.boxes, truth.spacing), -np.inf)
            yield rule.key, tuple(claim_at_each(near, ranked.scores, [-np.inf])[0].tolist())


def _lesion_records(truth: Truth) -> tuple[LesionRecord, ...]:
    extents = None if truth.spacing is None else box_sizes(truth.boxes) * np.array(truth.spacing)
    return tuple(
        LesionRecord(
            int(label),
            tuple(box.tolist()),
            None if truth.volumes_mm3 is None else float(truth.volumes_mm3[row]),
            None if truth.short_axes_mm is None else float(truth.short_axes_mm[row]),
            None if extents is None else tuple(extents[row].tolist()),
            None if truth.outside_ctv_mm is None else float(truth.outside_ctv_mm[row]),
            None if truth.stations is None else truth.stations[row],
        )
        for row, (label, box) in enumerate(zip(truth.labels, truth.boxes, strict=True))
    )


def _slice_record(
    case_id: str, truth: Truth, detections: Detections, candidates: Detections, iou: float
) -> SliceRecord:
    if not 0 < iou <= 1:
        raise ValueError(f"the IoU of a slice-wise hit must lie in (0, 1], got {iou}")
    slices = _slices_of(case_id, detections, truth.num_slices)
    images = np.zeros(truth.num_slices)
    np.maximum.at(images, _slices_of(case_id, candidates, truth.num_slices), candidates.scores)
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
    return SliceRecord(int(truth.num_slices), iou, predictions, flat_truth, tuple(images.tolist()))


def _slices_of(case_id: str, detections: Detections, num_slices: int) -> NDArray[np.int64]:
    _check_finite(case_id, detections, dim=2)
    slices = np.asarray(detections.columns["slice"], dtype=np.int64)
    check_range(f"{case_id}: slices of the detections", slices, num_slices)
    return slices


def _check_finite(case_id: str, detections: Detections, dim: int) -> None:
    if detections.dim != dim:
        raise ValueError(f"{case_id}: expected {dim}D boxes, got {detections.dim}D")
    if not (np.isfinite(detections.scores).all() and np.isfinite(detections.boxes).all()):
        raise ValueError(f"{case_id}: a score or a box coordinate is not a finite number")
