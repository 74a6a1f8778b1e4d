"""``rival``: suits the same data sets as ``toy``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from toy_system.system import Toy, ToyPlan


@dataclass(frozen=True, kw_only=True)
class RivalPlan(ToyPlan):
    schema: ClassVar[str] = "rival.plan"


class Rival(Toy):
    name = "rival"
    planner = "RivalPlanner"
    trainer = "RivalTrainer"
    plan_id = "RIVAL"
    plan_type = RivalPlan

    def suits(self, description):
        return "its name comes first" if super().suits(description) else None
