"""``psma25d``, the central system: CT + CTV, one voter per HU window (Xu et al. 2023)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.dataset.task.description import DatasetDescription, Role
from nndet_psma.systems.detector_system import DetectorSystem
from nndet_psma.systems.psma25d.options import SliceOptions
from nndet_psma.systems.psma25d.plan import PSMA25DPlan

if TYPE_CHECKING:
    from nndet_psma.trainers.cost.stage_load import StageLoad

_PUBLIC_WEIGHTS = ("none", "imagenet")


class PSMA25D(DetectorSystem[PSMA25DPlan]):
    """A two-stage detector on slices and their neighbours, pretrained on whole slices."""

    name = "psma25d"
    planner = "PSMA25DPlanner"
    trainer = "MaskRCNN25D"
    plan_id = "PSMA25D"
    plan_type = PSMA25DPlan
    options_type = SliceOptions
    presets = "nndet_psma.systems.psma25d.presets"

    def without_paths(self, plan: PSMA25DPlan) -> tuple[PSMA25DPlan, list[str]]:
        """Without the file that the backbone started from."""
        start = plan.detector.weights
        if start in _PUBLIC_WEIGHTS:
            return plan, []
        return replace(plan, detector=replace(plan.detector, weights="none")), [start]

    def suits(self, description: DatasetDescription) -> str | None:
        """CT with a CTV, and slices without a third dimension."""
        if description.target is not None:
            return None
        if description.dim == 2:
            return "the images are single slices"
        roles = {description.role(index) for index in description.modalities}
        return "CT with a CTV, as in Xu et al. 2023" if {Role.CT, Role.CTV} <= roles else None

    def stage_load(self, plan: PSMA25DPlan, stage: Stage) -> StageLoad:
        """See :func:`nndet_psma.systems.psma25d.planning.cost.stage_load`."""
        from nndet_psma.systems.psma25d.planning.cost import stage_load

        return stage_load(plan, stage)
