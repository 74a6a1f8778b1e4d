"""The planners: found by name, entry point or dotted path."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from nndet_psma.artifacts.detector_plan import DetectorPlan
from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.plan import Target
from nndet_psma.core.registry import Registry
from nndet_psma.planners.detector_options import DetectorOptions
from nndet_psma.planners.folds import FoldChoice

P = TypeVar("P", bound=DetectorPlan, covariant=True)


class Planner(Protocol[P]):
    """Turns a fingerprint into a plan; built without arguments."""

    def plan(
        self,
        fingerprint: Fingerprint,
        options: DetectorOptions,
        *,
        plan_id: str,
        trainer: str,
        target: Target,
        folds: FoldChoice,
    ) -> P:
        """The plan called ``plan_id`` for training with ``trainer`` on ``target``."""
        ...


PLANNERS: Registry[Planner[Any]] = Registry("planner", "nndet_psma.planners")
