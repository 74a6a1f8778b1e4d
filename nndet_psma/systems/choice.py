"""Which system a task is for when the user names none: a preset of ``conf/train``."""

from __future__ import annotations

from dataclasses import dataclass

from nndet_psma.artifacts.plan import Plan
from nndet_psma.dataset.task.description import DatasetDescription, Role

SLICES, PATCHES, SEGMENTATION = "psma25d", "retina3d", "nodeseg"
_OF_TRAINER = {"MaskRCNN25D": SLICES, "RetinaNet3D": PATCHES, "nnUNetTrainerNodeSeg": SEGMENTATION}


@dataclass(frozen=True)
class SystemChoice:
    """A preset and why it was taken."""

    name: str
    reason: str


def default_system(description: DatasetDescription) -> SystemChoice:
    """The central system for CT with a CTV and for slices without a third dimension, ``retina3d`` for all else."""
    roles = {description.role(index) for index in description.modalities}
    if description.dim == 2:
        return SystemChoice(SLICES, "the images are single slices")
    if {Role.CT, Role.CTV} <= roles:
        return SystemChoice(SLICES, "CT with a CTV, as in Xu et al. 2023")
    missing = " and ".join(role.value for role in (Role.CT, Role.CTV) if role not in roles)
    return SystemChoice(PATCHES, f"the task has no {missing}")


def system_of(plan: Plan) -> str:
    """The preset whose defaults fit a plan; that of slices for trainers from elsewhere."""
    return _OF_TRAINER.get(plan.trainer, SLICES if plan.detector3d is None else PATCHES)
