"""Which nodes are suspicious, which one is the largest, and the N stage that follows from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from nndet_psma.core.errors import UserError
from nndet_psma.nodes.measurement import NodeMeasurement
from nndet_psma.nodes.size_zone import Zone

Diameter = Literal["box", "in_plane"]
Size = Literal["diameter", "volume"]
Stage = Literal["N0", "N1"]

THRESHOLD_MM = 8.0
THRESHOLD_SOURCE = (
    "short diameter above 0.8 cm by the minimum-volume bounding box, pelvic diffusion-weighted MR (dwi2022)"
)
_OWN_SOURCE = "chosen by the user"


@dataclass(frozen=True)
class StagingRule:
    """When a node is suspicious.

    Attributes:
        threshold_mm: a node whose short diameter is *above* this is suspicious.
        diameter: "box" for the shortest side of the minimum-volume bounding box (the paper), "in_plane" for the short
            axis on the slice of largest area (radiologists).
        largest_by: "diameter" for the one just chosen, so that the stage follows from the largest node alone as in
            the paper's report; or "volume".
        source: where the threshold comes from; reports quote it.

    Raises:
        UserError: the threshold is no positive number, or a choice is unknown.
    """

    threshold_mm: float = THRESHOLD_MM
    diameter: Diameter = "box"
    largest_by: Size = "diameter"
    source: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold_mm) and self.threshold_mm > 0):
            raise UserError(
                "threshold that makes no sense",
                expected="a positive number of mm",
                found=str(self.threshold_mm),
            )
        if self.diameter not in ("box", "in_plane") or self.largest_by not in ("diameter", "volume"):
            raise UserError(
                "unknown staging rule",
                expected="diameter box or in_plane, largest_by diameter or volume",
                found=f"{self.diameter}, {self.largest_by}",
            )
        if not self.source:
            papers = self.threshold_mm == THRESHOLD_MM and self.diameter == "box"
            object.__setattr__(self, "source", THRESHOLD_SOURCE if papers else _OWN_SOURCE)

    def short_mm(self, node: NodeMeasurement) -> float:
        """The short diameter that is compared with the threshold."""
        return node.short_diameter_mm if self.diameter == "box" else node.in_plane_short_mm

    def is_suspicious(self, node: NodeMeasurement) -> bool:
        """Whether the node is larger than the threshold; exactly at it is not."""
        return self.short_mm(node) > self.threshold_mm

    def zone_mm(self, node: NodeMeasurement) -> Zone | None:
        """Between which sizes that diameter may lie, as far as voxels go; None of detected boxes."""
        return node.box_short_zone_mm if self.diameter == "box" else node.in_plane_short_zone_mm

    def is_borderline(self, node: NodeMeasurement) -> bool:
        """Whether sizes on both sides of the threshold lie in the zone; the decision stays that of the size itself."""
        zone = self.zone_mm(node)
        return zone is not None and zone[0] <= self.threshold_mm < zone[1]

    def largest(self, nodes: Sequence[NodeMeasurement]) -> NodeMeasurement | None:
        """The largest node; ties go to the larger other measure, then to the lower id; None without nodes."""
        return max(nodes, key=self.size, default=None)

    def size(self, node: NodeMeasurement) -> tuple[float, float, int]:
        """What the largest node has most of: key for sorting."""
        sizes = self.short_mm(node), node.volume_mm3
        first, second = sizes if self.largest_by == "diameter" else sizes[::-1]
        return first, second, -node.node


@dataclass(frozen=True)
class NodalStage:
    """Result for one patient.

    Attributes:
        stage: "N1" with at least one suspicious node, else "N0".
        suspicious: ids of the suspicious nodes, ascending.
        largest: id of the largest node; None without nodes.
        short_mm: short diameter of the node whose short diameter is longest, 0 without nodes: a score for ROC
            curves, above the threshold exactly in N1.
        borderline: ids of the nodes whose size may lie on either side of the threshold, ascending.
        hinges_on: those of them on which the stage hinges: the suspicious nodes of N1 when all of them are borderline,
            the borderline nodes of N0. Empty when voxels cannot change the stage.
    """

    stage: Stage
    suspicious: list[int]
    largest: int | None
    short_mm: float
    borderline: list[int] = field(default_factory=list)
    hinges_on: list[int] = field(default_factory=list)


def stage_nodes(nodes: Sequence[NodeMeasurement], rule: StagingRule | None = None) -> NodalStage:
    """N stage of a patient from all nodes measured: N1 when at least one is suspicious, else N0 (dwi2022)."""
    rule = rule or StagingRule()
    suspicious = sorted(node.node for node in nodes if rule.is_suspicious(node))
    borderline = sorted(node.node for node in nodes if rule.is_borderline(node))
    largest = rule.largest(nodes)
    certain = not set(suspicious) <= set(borderline)
    return NodalStage(
        "N1" if suspicious else "N0",
        suspicious,
        None if largest is None else largest.node,
        max((rule.short_mm(node) for node in nodes), default=0.0),
        borderline,
        [] if certain else suspicious or borderline,
    )
