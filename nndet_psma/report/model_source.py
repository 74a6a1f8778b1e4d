"""What the report of every model is made from, whatever it says of a case; already read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.plan import Plan
from nndet_psma.report.page.content import Missing, Section
from nndet_psma.report.training_cost import TrueCost
from nndet_psma.systems.system import Facts, MetricRows
from nndet_psma.trainers.watch.memory_check import MemoryCheck


class DrawnScores(Protocol):
    """What the shared sections ask of scores: how their intervals were drawn."""

    @property
    def bootstrap_draws(self) -> int:
        """Draws of patients."""

    @property
    def seed(self) -> int:
        """Of the draws."""

    @property
    def level(self) -> float:
        """Of the intervals."""

    @property
    def intervals(self) -> str:
        """How they were made."""


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A trained and scored model; what could not be read is None or empty, and ``missing`` says why.

    Attributes:
        task: folder name of the task.
        model: folder name of the model.
        fold: fold, -1 for the consolidated model.
        split: "test" or "validation".
        date: of the report, as text.
        plan: the model was trained with.
        facts: what the plan means.
        decisions: rows (key, value, rule, evidence) of the plan.
        inference: tuned settings.
        scores: of the evaluated cases.
        fingerprint: of the training data.
        metrics: fold to stage to rows of ``metrics.csv``.
        environments: fold to ``environment.json``.
        cost: measured, of the folds' training.
        memory: (fold, ``memory.json``) of stages that were trained on a GPU.
        precision: mixed precision the folds were trained with, as in ``trainer_cfg``.
        stale: whether the predictions were made with other tuned settings than those of the model now.
        own_sections: of the system, made from this source.
        others: file names of the model's other reports, in the same folder.
        missing: "inference", "fingerprint", "metrics", "environment", "raw" ... to what is missing.
    """

    task: str
    model: str
    fold: int
    split: str
    date: str
    plan: Plan
    facts: Facts
    decisions: Sequence[tuple[str, str, str, str]]
    inference: InferencePlan | None
    scores: DrawnScores
    fingerprint: Fingerprint | None = None
    metrics: Mapping[int, Mapping[str, MetricRows]] = field(default_factory=dict)
    environments: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    cost: TrueCost = field(default_factory=lambda: TrueCost(()))
    memory: Sequence[tuple[str, MemoryCheck]] = ()
    precision: str = "no"
    stale: bool = False
    own_sections: Sequence[Callable[[Any], Section]] = ()
    others: Sequence[str] = ()
    missing: Mapping[str, Missing] = field(default_factory=dict)

    @property
    def stages(self) -> list[str]:
        """Names of the trainings of a fold that have left curves, in order."""
        return list(dict.fromkeys(name for stages in self.metrics.values() for name in stages))

    @property
    def scored_cases(self) -> Sequence[str]:
        """Case ids that were scored; of each one or several."""
        return ()

    @property
    def tuned_on_these(self) -> bool:
        """Whether a scored case was also one that was tuned on."""
        if self.split == "validation":
            return bool(self.inference and self.inference.cases)
        chosen = set(self.inference.cases) if self.inference else set()
        return not chosen.isdisjoint(self.scored_cases)

    @property
    def subtitle(self) -> str:
        """Which model, fold and cases, and when."""
        fold = "consolidated model" if self.fold < 0 else f"fold {self.fold}"
        return f"{self.model}, {fold}, {self.split} predictions. Written {self.date}."
