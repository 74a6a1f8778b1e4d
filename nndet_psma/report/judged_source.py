"""Everything the report of a model that judges objects or cases is made from, already read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nndet_psma.evaluation.judgements.compare import JudgementComparison
from nndet_psma.evaluation.judgements.row import JudgedRow
from nndet_psma.evaluation.judgements.scores import JudgementScores
from nndet_psma.evaluation.judgements.shortcuts import ShortcutTable
from nndet_psma.report.model_source import ModelSource
from nndet_psma.report.page.content import Picture


@dataclass(frozen=True, kw_only=True)
class JudgedSource(ModelSource):
    """Everything the report of judgements is made from.

    Attributes:
        scores: of what was judged.
        rows: every judged object (or case), those without a truth included.
        comparisons: with other models on the same cases.
        shortcuts: what simple models reach on the same objects; None where there are none.
        explained: pictures of where the network looked, by case and object.
    """

    scores: JudgementScores
    rows: Sequence[JudgedRow] = ()
    comparisons: Sequence[JudgementComparison] = ()
    shortcuts: ShortcutTable | None = None
    explained: Mapping[tuple[str, int], Picture] = field(default_factory=dict)

    @property
    def scored_cases(self) -> list[str]:
        """Case ids of the rows."""
        return [row.case_id for row in self.rows]
