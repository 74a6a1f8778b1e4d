"""What became of the cases of a prediction, whichever engine made it."""

from __future__ import annotations

from dataclasses import dataclass, field

from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.core.errors import UserError


@dataclass
class PredictResult:
    """What became of the cases of a job.

    Attributes:
        predictions: of the cases that could be predicted, in their order.
        kept: cases that were finished before.
        failed: what was wrong, by case id.
    """

    predictions: list[Prediction] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, UserError] = field(default_factory=dict)
