"""Plan and result of ``nodestatus``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nndet_psma.artifacts.classified import Classified
from nndet_psma.artifacts.classifier_plan import ClassifierPlan


@dataclass(frozen=True, kw_only=True)
class NodeStatusPlan(ClassifierPlan):
    """How the status of nodes is learnt."""

    schema: ClassVar[str] = "nndet_psma.node_status_plan"


@dataclass(frozen=True)
class NodeStatusResult(Classified):
    """``CASE_status.json``: every node of a case with the probability that it is positive."""

    schema: ClassVar[str] = "nndet_psma.node_status"
    suffix: ClassVar[str] = "_status.json"
