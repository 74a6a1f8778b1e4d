"""What the tuned thresholds accept, scored as lesions in 3D.

AP, FROC and the table of operating points rank candidates; what a user is shown are the accepted lesions, for which
score threshold, votes and filters have decided together. Hits are those of
:mod:`nndet_psma.evaluation.detection.matching`: each lesion is found once, all classes count together, a match lies
within a class.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from nndet_psma.evaluation.detection.draws import Values, drawn_points
from nndet_psma.evaluation.detection.operating_points import (
    NO_CASES,
    OTHER_CASES,
    RATES,
    SCORED_CASES,
    UNKNOWN_CASES,
    OperatingPoint,
    operating_points,
    scale_of,
)
from nndet_psma.evaluation.detection.ranking import DetectionColumns, RankedDetections, Weights
from nndet_psma.evaluation.detection.record import ACCEPTED_IOUS, OTHER_RULES, CaseRecord, iou_key
from nndet_psma.evaluation.detection.score import Score, scored
from nndet_psma.evaluation.statistics.resampling import Resampling

MAIN_RULE = iou_key(0.1)
ACCEPTED_KEYS = tuple(f"accepted_{name}" for name in RATES)
"""Names of the rates by :data:`MAIN_RULE` beside other scores."""

_EVERYTHING = 0.0
_WHY = {
    "ppv": "nothing is accepted",
    "fp_per_case": "there are no cases",
    "fp_per_patient": "there are no cases",
}


@dataclass(frozen=True)
class TunedThresholds:
    """Where the thresholds come from.

    Attributes:
        source: one sentence.
        tuned: whether anything was tuned; otherwise they are defaults.
        cases: those they were tuned on, by name.
    """

    source: str = ""
    tuned: bool = True
    cases: Collection[str] = ()

    def chosen_on(self, scored_cases: Collection[str]) -> str:
        """On which cases they were chosen, seen from the cases that are scored."""
        if not self.tuned:
            return NO_CASES
        if not self.cases:
            return UNKNOWN_CASES
        return SCORED_CASES if set(self.cases) & set(scored_cases) else OTHER_CASES


@dataclass(frozen=True)
class AcceptedRates:
    """Rates under one meaning of a hit.

    Attributes:
        tp: lesions found.
        fp: accepted lesions that find none.
        fn: lesions missed.
        sensitivity: TP / (TP + FN).
        ppv: TP / (TP + FP).
        f1: 2 TP / (2 TP + FP + FN).
        fp_per_case: FP / cases.
        fp_per_patient: FP / patients.
    """

    tp: int
    fp: int
    fn: int
    sensitivity: Score
    ppv: Score
    f1: Score
    fp_per_case: Score
    fp_per_patient: Score


@dataclass(frozen=True)
class Accepted:
    """Scores of the accepted lesions.

    Attributes:
        chosen_on: cases that the thresholds were chosen on: ``no cases``, ``other cases``, ``the scored cases`` (some
            of them are enough; the rates are then optimistic) or ``unknown cases``.
        source: where the thresholds come from, one sentence.
        by_rule: key of a hit rule (``0.10``, ``overlap_0.10``, ``distance_5mm``, ``centre``) to rates.
    """

    chosen_on: str
    source: str
    by_rule: dict[str, AcceptedRates]


def rank_accepted(records: Sequence[CaseRecord]) -> dict[str, RankedDetections]:
    """Accepted lesions of all cases by hit rule; none at all when a record does not know them."""
    seen = [
        replace(record, predictions=record.accepted.predictions, matches=record.accepted.matches)
        for record in records
        if record.accepted is not None
    ]
    if len(seen) < len(records):
        return {}
    rules = [iou_key(iou) for iou in ACCEPTED_IOUS] + [rule.key for rule in OTHER_RULES]
    keys = [key for key in rules if all(key in record.matches for record in seen)]
    return dict(zip(keys, DetectionColumns.of(seen).rank(keys, max_detections=None), strict=True))


def score_accepted(
    ranked: Mapping[str, RankedDetections],
    resampling: Resampling,
    thresholds: TunedThresholds,
    scored_cases: Collection[str],
) -> Accepted | None:
    """Rates with intervals; None when the accepted lesions are not known.

    Args:
        ranked: from :func:`rank_accepted`.
        resampling: draws of patients.
        thresholds: where they come from.
        scored_cases: names of the cases.
    """
    if not ranked:
        return None
    by_rule = {key: _rates(each, resampling) for key, each in ranked.items()}
    return Accepted(thresholds.chosen_on(scored_cases), thresholds.source, by_rule)


def accepted_values(ranked: Mapping[str, RankedDetections]) -> dict[str, float | None]:
    """:data:`ACCEPTED_KEYS` to values; empty when the accepted lesions are not known."""
    if MAIN_RULE not in ranked:
        return {}
    point = _point(ranked[MAIN_RULE])
    return {key: getattr(point, name) for key, name in zip(ACCEPTED_KEYS, RATES, strict=True)}


def drawn_accepted(ranked: Mapping[str, RankedDetections], draws: Weights) -> dict[str, Values]:
    """:func:`accepted_values` in every draw ``[D]``, NaN where undefined."""
    if MAIN_RULE not in ranked:
        return {}
    drawn = drawn_points(ranked[MAIN_RULE], [_EVERYTHING], draws)
    return {key: drawn[name][:, 0] for key, name in zip(ACCEPTED_KEYS, RATES, strict=True)}


def _point(ranked: RankedDetections) -> OperatingPoint:
    return operating_points(ranked, [_EVERYTHING])[0]


def _rates(ranked: RankedDetections, resampling: Resampling) -> AcceptedRates:
    point, drawn = _point(ranked), drawn_points(ranked, [_EVERYTHING], resampling.weights)
    rates = {
        name: scored(
            getattr(point, name),
            drawn[name][:, 0],
            resampling,
            _WHY.get(name, "there are no lesions"),
            scale=scale_of(name),
        )
        for name in RATES
    }
    return AcceptedRates(point.tp, point.fp, point.fn, **rates)
