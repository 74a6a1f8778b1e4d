"""``nodestatus``: is this lymph node infiltrated? (Hartenstein et al. 2020, Sci Rep 10:3398)"""

from __future__ import annotations

from typing import ClassVar

from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.planners.classifier_options import ClassifierOptions
from nndet_psma.systems.classifying_system import ClassifyingSystem
from nndet_psma.systems.nodestatus.plan import NodeStatusPlan, NodeStatusResult
from nndet_psma.systems.system import PlanJob
from nndet_psma.trainers.settings import TrainerSettings

TARGET = "node_status"


class NodeStatusSystem(ClassifyingSystem[NodeStatusPlan]):
    """Given nodes, each with the probability that it is positive."""

    name = "nodestatus"
    planner = "NodeStatus"
    trainer = "NodeStatusTrainer"
    plan_id = "NodeStatus"
    plan_type = NodeStatusPlan
    result_type: ClassVar[type[NodeStatusResult]] = NodeStatusResult
    presets = "nndet_psma.systems.nodestatus.presets"

    def suits(self, description: DatasetDescription) -> str | None:
        """Where dataset.json asks for it."""
        return "dataset.json asks for the status of nodes" if description.target == TARGET else None

    def make_plan(self, job: PlanJob[NodeStatusPlan, ClassifierOptions, TrainerSettings]) -> NodeStatusPlan:
        """See :func:`nndet_psma.systems.nodestatus.planner.plan_node_status`."""
        from nndet_psma.systems.nodestatus.planner import plan_node_status

        return plan_node_status(job)
