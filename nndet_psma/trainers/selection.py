"""Value of weights on validation patients, to keep the best of a training.

Weights chosen on patients make later scores on the same patients optimistic, so this is off unless asked for
(``trainer_cfg.select``): the paper keeps the last step's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.box import Boxes, boxes_from_instances
from nndet_psma.boxes.detections import Detections
from nndet_psma.evaluation.detection.average_precision import average_precision, mean_of_defined
from nndet_psma.evaluation.detection.matching import match_greedy
from nndet_psma.evaluation.detection.ranking import RankedDetections
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.store import read_case

SELECTION_IOU = 0.1  # the paper's tau3: a hit


@dataclass(frozen=True)
class BoxHits:
    """Predictions of some slices or volumes, by class: plain lists, so that processes can exchange them.

    Attributes:
        scores: class to the scores of its boxes.
        hits: class to whether each box claimed a lesion of its slice or volume.
        lesions: class to the number of lesion boxes.
    """

    scores: dict[int, list[float]]
    hits: dict[int, list[bool]]
    lesions: dict[int, int]

    @classmethod
    def none(cls, classes: int) -> BoxHits:
        """Nothing predicted, nothing there."""
        return cls(
            {c: [] for c in range(classes)}, {c: [] for c in range(classes)}, dict.fromkeys(range(classes), 0)
        )

    def add(self, other: BoxHits) -> None:
        """Take in those of ``other``."""
        for label in self.lesions:
            self.scores[label] += other.scores[label]
            self.hits[label] += other.hits[label]
            self.lesions[label] += other.lesions[label]

    def count(self, found: Detections, boxes: Boxes, labels: NDArray[np.int64]) -> None:
        """Match what was ``found`` in one slice or volume with the lesions there, ``boxes`` of classes ``labels``."""
        claimed = match_greedy(found.boxes, found.scores, found.labels, boxes, labels, iou=SELECTION_IOU)
        for label, score, lesion in zip(found.labels, found.scores, claimed, strict=True):
            self.scores[int(label)].append(float(score))
            self.hits[int(label)].append(bool(lesion >= 0))
        for label in labels.tolist():
            self.lesions[label] += 1

    def average_precision(self) -> float | None:
        """Mean over the classes that have lesions; None when none has. Every box counts."""
        return mean_of_defined(self._of_class(label) for label in sorted(self.lesions))

    def _of_class(self, label: int) -> float | None:
        scores = np.array(self.scores[label], dtype=np.float64)
        order = np.argsort(-scores, kind="stable")
        ranked = RankedDetections(
            scores[order],
            np.array(self.hits[label], dtype=bool)[order],
            np.zeros(len(scores), dtype=np.int64),
            np.array([self.lesions[label]], dtype=np.int64),
        )
        return average_precision(ranked)


def find_hits(
    store: Path,
    case_ids: Sequence[str],
    predict: Callable[[PreparedCase], Detections],
    match: Callable[[Detections, PreparedCase], BoxHits],
    *,
    classes: int,
    advance: Callable[[], None] = lambda: None,
) -> BoxHits:
    """Predict some cases and match what is found with their lesions.

    Args:
        store: preprocessed cases.
        case_ids: validation cases.
        predict: finds boxes in a case.
        match: tells which of them are hits.
        classes: of lesions.
        advance: called after every case.
    """
    total = BoxHits.none(classes)
    for case_id in case_ids:
        case = read_case(store, case_id)
        total.add(match(predict(case), case))
        advance()
    return total


def lesion_boxes(
    case: PreparedCase, instances: NDArray[np.int16]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Boxes and classes of the lesions in a plane or volume ``instances`` of the case's instance ids."""
    ids, boxes = boxes_from_instances(instances)
    return boxes, np.array([case.classes[int(i)] for i in ids], dtype=np.int64)
