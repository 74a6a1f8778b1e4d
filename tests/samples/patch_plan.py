"""A plan on slices as one on patches."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from nndet_psma.artifacts.detector_plan import DetectorPlan
from nndet_psma.systems.retina3d.plan import Detector3D, Retina3DPlan


def on_patches(plan: DetectorPlan, detector: Detector3D, **changes: Any) -> Retina3DPlan:
    """``plan`` with another detector, which needs no neighbouring slices."""
    values: dict[str, Any] = {field.name: getattr(plan, field.name) for field in fields(plan)}
    names = {"planner": "Retina3DPlanner", "trainer": "RetinaNet3D", "plan_id": "Retina3D"}
    own = {"detector": None, "detector3d": detector, "neighbours": 0}
    return Retina3DPlan(**{**values, **names, **own, **changes})
