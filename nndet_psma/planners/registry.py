"""The planners: found by name, entry point or dotted path."""

from __future__ import annotations

from typing import Protocol

from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.plan import Plan, Target
from nndet_psma.core.registry import Registry
from nndet_psma.planners.folds import FoldChoice
from nndet_psma.planners.options import PlannerOptions


class Planner(Protocol):
    """Turns a fingerprint into a plan; built without arguments."""

    def plan(
        self,
        fingerprint: Fingerprint,
        options: PlannerOptions,
        *,
        plan_id: str,
        trainer: str,
        target: Target,
        folds: FoldChoice,
    ) -> Plan:
        """The plan called ``plan_id`` for training with ``trainer`` on ``target``."""
        ...


PLANNERS: Registry[Planner] = Registry("planner", "nndet_psma.planners")
