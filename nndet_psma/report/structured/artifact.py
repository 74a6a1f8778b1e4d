"""The structured report of a patient: nodes, the largest one, the N stage, and by which rule; a JSON artefact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from nndet_psma import __version__
from nndet_psma.artifacts.artifact import Artifact
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.nodes.measurement import NodeMeasurement
from nndet_psma.nodes.staging import NodalStage, StagingRule, stage_nodes

Origin = Literal["components", "instances", "boxes"]

REPORT_SUFFIX = "_nodes.json"
STRUCTURED_DISCLAIMER = (
    "Research software, not a medical device. Sizes are measured by a program and have not been read by a physician; "
    "the N stage follows from size alone and is no diagnosis of metastasis. Not for clinical decisions."
)


@dataclass(frozen=True)
class StructuredReport(Artifact):
    """Nodes and stage of one case. It names no patient: only the name of the case, which the user chose.

    Attributes:
        case_id: name of the case.
        made_from: hash of the mask or prediction.
        origin: nodes are connected components of a mask, its given instances, or detected boxes.
        connectivity: neighbours that make a component; None of others.
        grid: of the measured image in canonical orientation; boxes and slices of the nodes count in it.
        rule: when a node is suspicious, and the source of the threshold.
        result: the stage, the suspicious nodes and the largest one.
        nodes: all of them.
        package_version: that measured.
    """

    schema: ClassVar[str] = "nndet_psma.structured_report"
    remade_by: ClassVar[str] = "nndet_psma measure"

    case_id: str
    made_from: str
    origin: Origin
    connectivity: int | None
    grid: Geometry
    rule: StagingRule
    result: NodalStage
    nodes: list[NodeMeasurement]
    package_version: str

    def node(self, number: int) -> NodeMeasurement:
        """The node of that id.

        Raises:
            KeyError: there is none.
        """
        for node in self.nodes:
            if node.node == number:
                return node
        raise KeyError(number)


def structured_report(
    case_id: str,
    nodes: Sequence[NodeMeasurement],
    grid: Geometry,
    *,
    origin: Origin,
    made_from: str,
    rule: StagingRule | None = None,
    connectivity: int | None = None,
) -> StructuredReport:
    """Stage the nodes and gather everything; nodes keep their order."""
    rule = rule or StagingRule()
    return StructuredReport(
        case_id=case_id,
        made_from=made_from,
        origin=origin,
        connectivity=connectivity,
        grid=grid,
        rule=rule,
        result=stage_nodes(nodes, rule),
        nodes=list(nodes),
        package_version=__version__,
    )
