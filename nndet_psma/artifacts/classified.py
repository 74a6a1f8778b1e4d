"""Judgements of networks that classify crops: with what each network said, so that calibration can be tuned again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nndet_psma.artifacts.results import Judged, Judgement


@dataclass(frozen=True)
class ClassifiedObject(Judgement):
    """One object.

    Attributes:
        logits: what each network of the ensemble says, as the log odds of the positive class where both classes are
            alike frequent, before calibration.
        controls: the same where a control took something away, by its name.
        raw_score: mean probability of the positive class before calibration.
        uncertainty: standard deviation of the networks' calibrated probabilities; 0 of a single one.
        station: where it lies.
        features: what was measured, by name.
        fused: one score of the probability and the score of the detector that has found the object; None without.
    """

    logits: list[float]
    controls: dict[str, list[float]]
    raw_score: float
    uncertainty: float
    station: str
    features: dict[str, float | None]
    fused: float | None = None


@dataclass(frozen=True)
class Classified(Judged):
    """Objects of a case, classified by an ensemble of networks.

    Attributes:
        threshold: probability of the positive class from which on it was decided for.
    """

    schema: ClassVar[str] = "nndet_psma.classified"
    suffix: ClassVar[str] = "_classified.json"

    objects: list[ClassifiedObject]  # type: ignore[assignment]  # a list of more special judgements
    threshold: float
