"""Value of a detector on validation cases: its 3D boxes against their lesions."""

from __future__ import annotations

import numpy as np

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.boxes.detections import Detections
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.region import stage_region
from nndet_psma.systems.retina3d.plan import Retina3DPlan
from nndet_psma.trainers.selection import BoxHits, lesion_boxes

CRITERION = "average precision of 3D boxes at IoU 0.1 on validation patients"


def match_volume(found: Detections, case: PreparedCase, plan: Retina3DPlan, stage: Stage) -> BoxHits:
    """Match 3D boxes with the lesions of a case, as far as the stage's region shows them.

    Raises:
        UserError: the case was preprocessed without labels.
    """
    instances = np.asarray(case.labelled)
    mask = stage_region(case, plan, stage).mask
    result = BoxHits.none(len(plan.classes))
    result.count(found, *lesion_boxes(case, instances if mask is None else instances * mask[:]))
    return result
