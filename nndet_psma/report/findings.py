"""What was found in a case, slice by slice, on the grid of its label: what tables and pictures are chosen from.

A box is a hit when it overlaps the box of a lesion of its class on the same slice with the IoU of the protocol
(``hit_iou``), and a lesion is found when a box hits it on any slice: the rules behind ``paper_sensitivity`` and
``paper_precision``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.boxes.box import empty_boxes
from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.geometry import map_boxes
from nndet_psma.evaluation.detection.matching import class_overlaps
from nndet_psma.evaluation.detection.record import CaseRecord
from nndet_psma.report.case_images import CaseLabels
from nndet_psma.report.removed import covered_slices


@dataclass(frozen=True)
class CaseFindings:
    """Truth and accepted boxes of one case.

    Attributes:
        case_id: name.
        labels: lesions and grid.
        examined: (z0, y0, x0, z1, y1, x1) box that was searched.
        boxes: accepted 2D boxes; columns ``slice``, ``lesion`` (row of the prediction's lesions), ``votes``, ``hit``.
        found: rows of the truth that are hit.
    """

    case_id: str
    labels: CaseLabels
    examined: tuple[float, ...]
    boxes: Detections
    found: frozenset[int]

    @property
    def missed(self) -> list[int]:
        """Rows of the truth that no box hits, largest volume first."""
        volumes = self.labels.truth.volumes_mm3
        rows = [row for row in range(len(self.labels.truth.boxes)) if row not in self.found]
        return sorted(rows, key=lambda row: -(volumes[row] if volumes is not None else 0.0))

    @property
    def false_alarms(self) -> list[int]:
        """Predicted lesions without any hit, best slice score first."""
        lesions = self.boxes.columns["lesion"]
        hit = set(lesions[self.boxes.columns["hit"]].tolist())
        ordered = dict.fromkeys(lesions[np.argsort(-self.boxes.scores, kind="stable")].tolist())
        return [lesion for lesion in ordered if lesion not in hit]


def find(prediction: Prediction, labels: CaseLabels, hit_iou: float) -> CaseFindings:
    """Compare the accepted lesions of a prediction with the truth."""
    boxes = _slice_boxes(prediction, labels)
    truth = labels.truth
    overlaps = class_overlaps(boxes.boxes, boxes.labels, truth.slice_boxes, truth.labels[truth.slice_lesions])
    hits: NDArray[np.bool_] = overlaps >= hit_iou
    hits &= boxes.columns["slice"][:, None] == truth.slice_indices[None, :]
    examined = map_boxes(np.array([prediction.examined]), prediction.image, labels.grid)[0]
    return CaseFindings(
        prediction.case_id,
        labels,
        tuple(examined.tolist()),
        boxes.with_columns(hit=hits.any(axis=1)),
        frozenset(truth.slice_lesions[hits.any(axis=0)].tolist()),
    )


def _slice_boxes(prediction: Prediction, labels: CaseLabels) -> Detections:
    parts = [(row, lesion.label, s) for row, lesion in enumerate(prediction.lesions) for s in lesion.slices]
    thin = np.array([s.box for _, _, s in parts]) if parts else empty_boxes(3)
    boxes = map_boxes(thin, prediction.image, labels.grid)
    spread = [
        (index, z) for index in range(len(parts)) for z in covered_slices(boxes[index], labels.grid.shape[0])
    ]
    rows = np.array([index for index, _ in spread], dtype=np.int64)
    return Detections.build(
        boxes[rows][:, [1, 2, 4, 5]],
        np.array([part[2].score for part in parts])[rows] if parts else [],
        np.array([part[1] for part in parts])[rows] if parts else [],
        dim=2,
        slice=np.array([z for _, z in spread], dtype=np.int64),
        lesion=np.array([parts[index][0] for index in rows], dtype=np.int64),
        votes=np.array([parts[index][2].votes for index in rows], dtype=np.int64),
    )


@dataclass(frozen=True)
class CaseCounts:
    """One row of the case table: lesions, those found, accepted slice boxes, hits among them, best 3D score."""

    case_id: str
    lesions: int
    found: int
    boxes: int
    hits: int
    best_score: float | None

    @property
    def quality(self) -> tuple[float, float, str]:
        """Sorts from worst to best: share found, then share of boxes that hit; the name breaks ties."""
        share = self.found / self.lesions if self.lesions else 1.0
        precision = self.hits / self.boxes if self.boxes else 1.0
        return share, precision, self.case_id


def count_case(record: CaseRecord) -> CaseCounts:
    """Counts of a record; a record without slice part has no boxes."""
    slices = record.slices.predictions if record.slices is not None else ()
    found = {lesion for prediction in slices for lesion in prediction.hits}
    best = max((prediction.score for prediction in record.predictions), default=None)
    hits = sum(1 for prediction in slices if prediction.hits)
    return CaseCounts(record.case_id, len(record.lesions), len(found), len(slices), hits, best)
