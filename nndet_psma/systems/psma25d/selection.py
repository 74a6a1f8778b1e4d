"""Value of a detector on validation slices: its boxes against the lesions of every slice."""

from __future__ import annotations

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.boxes.detections import Detections
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.region import stage_region
from nndet_psma.systems.psma25d.plan import PSMA25DPlan
from nndet_psma.trainers.selection import BoxHits, lesion_boxes

CRITERION = "slice-wise average precision at IoU 0.1 on validation patients"


def match_slices(found: Detections, case: PreparedCase, plan: PSMA25DPlan, stage: Stage) -> BoxHits:
    """Match 2D boxes with the lesions of their slices, as far as the stage's region shows them.

    Raises:
        UserError: the case was preprocessed without labels.
    """
    instances = case.labelled
    result = BoxHits.none(len(plan.classes))
    region = stage_region(case, plan, stage)
    for z in region.slices.tolist():
        plane = instances[z] if region.mask is None else instances[z] * region.mask[z]
        result.count(found.select(found.columns["slice"] == z), *lesion_boxes(case, plane))
    return result
