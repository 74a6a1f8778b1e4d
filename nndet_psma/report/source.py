"""Everything a report is made from, already read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.plan import Plan
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.evaluation.detection.compare import Comparison
from nndet_psma.evaluation.detection.record import CaseRecord
from nndet_psma.evaluation.detection.scores import Scores
from nndet_psma.inference.ablation import AblationRow
from nndet_psma.report.case_images import CaseImages, CaseLabels
from nndet_psma.report.page.content import Missing
from nndet_psma.report.removed import PlacedBox
from nndet_psma.report.training_cost import TrueCost
from nndet_psma.systems.system import Facts, MetricRows
from nndet_psma.trainers.watch.memory_check import MemoryCheck


@dataclass(frozen=True)
class Raw:
    """Ways to the raw data of the evaluated cases, called only for cases that are looked at.

    Attributes:
        labels: case id to its lesions.
        images: case id to CT, search region and instance mask.
        removed: case id to the boxes that the post-processing removed; empty without raw predictions.
    """

    labels: Callable[[str], CaseLabels]
    images: Callable[[str], CaseImages]
    removed: Callable[[str], list[PlacedBox]]


@dataclass(frozen=True)
class ReportSource:
    """Everything a report is made from; what could not be read is None or empty, and ``missing`` says why.

    Attributes:
        task: folder name of the task.
        model: folder name of the model.
        fold: fold, -1 for the consolidated model.
        split: "test" or "validation".
        date: of the report, as text.
        plan: the model was trained with.
        facts: what the plan means.
        decisions: rows (key, value, rule, evidence) of the plan.
        inference: tuned thresholds.
        scores: of the evaluated cases.
        records: of the evaluated cases.
        ablation: rows of ``ablation.json``.
        sweep: content of ``sweep.json``.
        fingerprint: of the training data.
        metrics: fold to stage to rows of ``metrics.csv``.
        environments: fold to ``environment.json``.
        predictions: by case id.
        raw: ways to images and labels.
        comparisons: with other models on the same cases.
        cost: measured, of the folds' training.
        memory: (fold, ``memory.json``) of stages that were trained on a GPU.
        precision: mixed precision the folds were trained with, as in ``trainer_cfg``.
        stale: whether the predictions were made with other thresholds than those of the model now.
        missing: "ablation", "sweep", "fingerprint", "metrics", "environment", "raw" ... to what is missing.
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
    scores: Scores
    records: Sequence[CaseRecord] = ()
    ablation: Sequence[AblationRow] = ()
    sweep: Mapping[str, Any] | None = None
    fingerprint: Fingerprint | None = None
    metrics: Mapping[int, Mapping[str, MetricRows]] = field(default_factory=dict)
    environments: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    predictions: Mapping[str, Prediction] = field(default_factory=dict)
    raw: Raw | None = None
    comparisons: Sequence[Comparison] = ()
    cost: TrueCost = field(default_factory=lambda: TrueCost(()))
    memory: Sequence[tuple[str, MemoryCheck]] = ()
    precision: str = "no"
    stale: bool = False
    missing: Mapping[str, Missing] = field(default_factory=dict)

    @property
    def stages(self) -> list[str]:
        """Names of the trainings of a fold that have left curves, in order."""
        return list(dict.fromkeys(name for stages in self.metrics.values() for name in stages))

    @property
    def tuned_on_these(self) -> bool:
        """Whether a scored case was also one that the thresholds were chosen on."""
        if self.split == "validation":
            return bool(self.inference and self.inference.cases)
        chosen = set(self.inference.cases) if self.inference else set()
        return any(record.case_id in chosen for record in self.records)
