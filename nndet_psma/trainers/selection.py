"""Value of weights on validation patients, to keep the best of a training.

Weights chosen on patients make later scores on the same patients optimistic, so this is off unless asked for
(``trainer_cfg.select``): the paper keeps the last step's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nndet_psma.artifacts.detector_plan import DetectorPlan, Stage
from nndet_psma.boxes.box import Boxes, boxes_from_instances
from nndet_psma.boxes.detections import Detections
from nndet_psma.core.errors import UserError
from nndet_psma.evaluation.detection.average_precision import average_precision, mean_of_defined
from nndet_psma.evaluation.detection.matching import match_greedy
from nndet_psma.evaluation.detection.ranking import RankedDetections
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.region import stage_region
from nndet_psma.preprocess.store import read_case
from nndet_psma.systems.psma25d.predict import predict_slices

SELECTION_IOU = 0.1  # the paper's tau3: a hit
CRITERION = "slice-wise average precision at IoU 0.1 on validation patients"
VOLUME_CRITERION = "average precision of 3D boxes at IoU 0.1 on validation patients"


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


def find_slice_hits(
    model: nn.Module,
    store: Path,
    case_ids: Sequence[str],
    plan: DetectorPlan,
    stage: Stage,
    *,
    device: torch.device,
    batch_size: int,
    advance: Callable[[], None] = lambda: None,
) -> BoxHits:
    """Predict the stage's slices of some cases and match them, slice by slice, with the lesions seen there.

    Args:
        model: detector in evaluation mode on ``device``.
        store: preprocessed cases.
        case_ids: validation cases.
        plan: of the stage.
        stage: region and windows.
        device: where the model is.
        batch_size: slices per forward pass.
        advance: called after every case.
    """
    total = BoxHits.none(len(plan.classes))
    for case_id in case_ids:
        case = read_case(store, case_id)
        found = predict_slices(model, case, plan, stage, device=device, batch_size=batch_size)
        total.add(match_slices(found, case, plan, stage))
        advance()
    return total


def match_slices(found: Detections, case: PreparedCase, plan: DetectorPlan, stage: Stage) -> BoxHits:
    """Match 2D boxes with the lesions of their slices, as far as the stage's region shows them.

    Raises:
        UserError: the case was preprocessed without labels.
    """
    if case.instances is None:
        raise UserError(f"case {case.case_id} was preprocessed without labels", remedy="Run nndet_prep")
    result = BoxHits.none(len(plan.classes))
    region = stage_region(case, plan, stage)
    for z in region.slices.tolist():
        mask = None if region.mask is None else region.mask[z]
        boxes, labels = _slice_truth(case, z, mask)
        result.count(found.select(found.columns["slice"] == z), boxes, labels)
    return result


def find_volume_hits(
    model: nn.Module,
    store: Path,
    case_ids: Sequence[str],
    plan: DetectorPlan,
    stage: Stage,
    *,
    device: torch.device,
    batch_size: int,
    advance: Callable[[], None] = lambda: None,
) -> BoxHits:
    """Predict some cases patch by patch and match the 3D boxes with the lesions in the stage's region.

    Args: as of :func:`find_slice_hits`; ``batch_size`` is patches per forward pass.
    """
    from nndet_psma.systems.retina3d.predict import (
        predict_patches,
    )  # MONAI takes seconds to import, slices need none of it

    total = BoxHits.none(len(plan.classes))
    for case_id in case_ids:
        case = read_case(store, case_id)
        found = predict_patches([model], case, plan, stage, device=device, batch_size=batch_size)[0]
        total.add(match_volume(found, case, plan, stage))
        advance()
    return total


def match_volume(found: Detections, case: PreparedCase, plan: DetectorPlan, stage: Stage) -> BoxHits:
    """Match 3D boxes with the lesions of a case, as far as the stage's region shows them.

    Raises:
        UserError: the case was preprocessed without labels.
    """
    if case.instances is None:
        raise UserError(f"case {case.case_id} was preprocessed without labels", remedy="Run nndet_prep")
    mask = stage_region(case, plan, stage).mask
    instances = np.asarray(case.instances)
    ids, boxes = boxes_from_instances(instances if mask is None else instances * mask[:])
    result = BoxHits.none(len(plan.classes))
    result.count(found, boxes, np.array([case.classes[int(i)] for i in ids], dtype=np.int64))
    return result


def _slice_truth(
    case: PreparedCase, z: int, mask: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    plane = case.instances[z] if case.instances is not None else np.zeros((0, 0), dtype=np.int16)
    ids, boxes = boxes_from_instances(plane if mask is None else plane * mask)
    return boxes, np.array([case.classes[int(i)] for i in ids], dtype=np.int64)
