"""``retina3d``: a one-stage 3D detector on patches of any modalities (nnDetection's RetinaUNet in its choices)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.dataset.task.description import DatasetDescription, Role
from nndet_psma.systems.detector_system import DetectorSystem
from nndet_psma.systems.retina3d.plan import Retina3DPlan

if TYPE_CHECKING:
    from nndet_psma.trainers.cost.stage_load import StageLoad


class Retina3D(DetectorSystem[Retina3DPlan]):
    """A RetinaNet on 3D patches."""

    name = "retina3d"
    planner = "Retina3DPlanner"
    trainer = "RetinaNet3D"
    plan_id = "RETINA3D"
    plan_type = Retina3DPlan
    presets = "nndet_psma.systems.retina3d.presets"

    def suits(self, description: DatasetDescription) -> str | None:
        """Volumes without CT or without CTV."""
        if description.target is not None:
            return None
        roles = {description.role(index) for index in description.modalities}
        missing = " and ".join(role.value for role in (Role.CT, Role.CTV) if role not in roles)
        return f"the task has no {missing}" if missing and description.dim == 3 else None

    def stage_load(self, plan: Retina3DPlan, stage: Stage) -> StageLoad:
        """See :func:`nndet_psma.systems.retina3d.planning.cost.stage_load`."""
        from nndet_psma.systems.retina3d.planning.cost import stage_load

        return stage_load(plan, stage)
