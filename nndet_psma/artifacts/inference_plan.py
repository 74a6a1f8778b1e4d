"""Inference plan: the tuned thresholds of a model, what they were tuned for and on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from nndet_psma.artifacts.artifact import Artifact
from nndet_psma.core.schema import AtMost, Number


@dataclass(frozen=True)
class InferencePlan(Artifact):
    """Settings for prediction.

    Attributes:
        made_from: hash of the validation predictions they were tuned on; "" for untuned defaults.
        folds: folds whose weights predict together.
        settings: fields of ``postproc.settings.PostprocSettings``.
        criterion: what was maximised; "" for untuned defaults.
        value: its value on the validation cases (optimistic: tuned on them), None untuned.
        source: where the thresholds come from, one sentence.
        cases: validation cases they were tuned on.
    """

    schema: ClassVar[str] = "nndet_psma.inference_plan"
    remade_by: ClassVar[str] = "nndet_sweep or nndet_consolidate"
    sealed: ClassVar[bool] = True

    made_from: str
    folds: Annotated[list[Number], AtMost(1000)]
    settings: dict[str, Any]
    criterion: str
    value: float | None
    source: str
    cases: list[str]
