"""Everything the report of a model that finds lesions is made from, already read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.evaluation.detection.compare import Comparison
from nndet_psma.evaluation.detection.record import CaseRecord
from nndet_psma.evaluation.detection.scores import Scores
from nndet_psma.inference.ablation import AblationRow
from nndet_psma.report.case_images import CaseImages, CaseLabels
from nndet_psma.report.model_source import ModelSource
from nndet_psma.report.removed import PlacedBox


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


@dataclass(frozen=True, kw_only=True)
class ReportSource(ModelSource):
    """Everything the report of a model that finds lesions is made from.

    Attributes:
        scores: of the evaluated cases.
        records: of the evaluated cases.
        ablation: rows of ``ablation.json``.
        sweep: content of ``sweep.json``.
        predictions: by case id.
        raw: ways to images and labels.
        comparisons: with other models on the same cases.
    """

    scores: Scores
    records: Sequence[CaseRecord] = ()
    ablation: Sequence[AblationRow] = ()
    sweep: Mapping[str, Any] | None = None
    predictions: Mapping[str, Prediction] = field(default_factory=dict)
    raw: Raw | None = None
    comparisons: Sequence[Comparison] = ()

    @property
    def scored_cases(self) -> list[str]:
        """Case ids of the records."""
        return [record.case_id for record in self.records]
