"""``retina3d``: a one-stage 3D detector on patches of any modalities (nnDetection's RetinaUNet in its choices)."""

from __future__ import annotations

from nndet_psma.dataset.task.description import DatasetDescription, Role
from nndet_psma.systems.detector_system import DetectorSystem
from nndet_psma.systems.retina3d.plan import Retina3DPlan


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
        roles = {description.role(index) for index in description.modalities}
        missing = " and ".join(role.value for role in (Role.CT, Role.CTV) if role not in roles)
        return f"the task has no {missing}" if missing and description.dim == 3 else None
