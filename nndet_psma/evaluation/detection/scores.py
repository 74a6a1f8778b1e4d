"""All scores of a set of records with confidence intervals: the content of ``scores.json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nndet_psma.evaluation.detection.accepted import Accepted, TunedThresholds, score_accepted
from nndet_psma.evaluation.detection.drawn_scores import drawn_others, drawn_values
from nndet_psma.evaluation.detection.draws import drawn_points
from nndet_psma.evaluation.detection.froc import FP_RATES, froc_curve, froc_score
from nndet_psma.evaluation.detection.operating_points import (
    NO_CASES,
    SCORED_CASES,
    OperatingPoint,
    best_f1,
    operating_points,
    scale_of,
)
from nndet_psma.evaluation.detection.ranking import DetectionColumns, RankedDetections
from nndet_psma.evaluation.detection.record import CaseRecord, iou_key
from nndet_psma.evaluation.detection.score import Score as Score
from nndet_psma.evaluation.detection.score import scored
from nndet_psma.evaluation.detection.score_tables import (
    PAPER_KEYS,
    PATIENT_KEY,
    REPORT_IOUS,
    ScoreTables,
    build_tables,
    other_key,
    score_values,
    why_undefined,
)
from nndet_psma.evaluation.detection.strata import Stratum, strata_scores
from nndet_psma.evaluation.statistics.bootstrap import Interval
from nndet_psma.evaluation.statistics.resampling import Method, Resampling

SCHEMA_VERSION = 2
"""Since 2 ``paper_auc`` ranks all candidates (before: ``paper_auc_accepted``), and accepted lesions are scored."""

OPERATING_IOU = 0.1
OPERATING_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))


@dataclass(frozen=True)
class OperatingRow:
    """An operating point with the intervals of its rates, and on which cases its threshold was chosen."""

    point: OperatingPoint
    sensitivity: Interval
    ppv: Interval
    fp_per_case: Interval
    f1: Interval | None = None
    fp_per_patient: Interval | None = None
    chosen_on: str = NO_CASES


@dataclass(frozen=True)
class Optimistic:
    """Operating points chosen on the very cases that are scored: no user will see them kept elsewhere.

    Attributes:
        chosen_on: the scored cases.
        best_f1: row of the highest F1 over all thresholds; None when no row has an F1.
    """

    chosen_on: str = SCORED_CASES
    best_f1: OperatingRow | None = None


@dataclass(frozen=True)
class Scores:
    """Scores of a set of cases.

    Attributes:
        schema_version: of this layout.
        num_cases: cases, also those without lesions or predictions.
        num_patients: patients.
        num_lesions: lesions.
        num_predictions: 3D predictions of any score.
        classes: name of each class index.
        slice_iou: IoU of a slice-wise hit (tau3).
        slice_threshold: lowest score of a slice-wise prediction that counts in the ``paper_`` scores.
        level: of the intervals.
        bootstrap_draws: draws of patients behind the intervals.
        seed: of the draws.
        scores: by the keys of :mod:`nndet_psma.evaluation.detection.score_tables`.
        froc_rates: false positives per case of the curves.
        froc_curves: ``FROC_curve_IoU_0.10`` to sensitivities at ``froc_rates``; without lesions there is none.
        operating_points: of all candidates at thresholds 0.05 to 0.95, IoU 0.1, all classes pooled.
        accepted: what the tuned thresholds accept; None where that is not known.
        optimistic: operating points chosen on these very cases.
        other_hits: FROC scores under the further hit rules (``FROC_score_centre`` ...), all classes pooled.
        strata: scores by size, class, station and distance to the CTV.
        intervals: how they were made, "studentised" or "percentile"; files without it hold percentiles.
    """

    schema_version: int
    num_cases: int
    num_patients: int
    num_lesions: int
    num_predictions: int
    classes: tuple[str, ...]
    slice_iou: float
    slice_threshold: float
    level: float
    bootstrap_draws: int
    seed: int
    scores: dict[str, Score]
    froc_rates: tuple[float, ...]
    froc_curves: dict[str, tuple[float, ...]]
    operating_points: tuple[OperatingRow, ...]
    accepted: Accepted | None = None
    optimistic: Optimistic = Optimistic()
    other_hits: dict[str, Score] = field(default_factory=dict)
    strata: tuple[Stratum, ...] = ()
    intervals: Method = "percentile"

    @property
    def best_f1(self) -> OperatingRow | None:
        """The optimistic row of the highest F1."""
        return self.optimistic.best_f1

    def results_boxes(self) -> dict[str, str]:
        """nnDetection's ``results_boxes.json``: its own keys only, values as text, ``nan`` when undefined."""
        ours = {*PAPER_KEYS, PATIENT_KEY}
        return {
            key: "nan" if score.value is None else str(score.value)
            for key, score in self.scores.items()
            if key not in ours
        }


def score_records(
    records: Sequence[CaseRecord],
    *,
    classes: Sequence[str],
    slice_iou: float = 0.1,
    slice_threshold: float = 0.0,
    bootstrap_draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    thresholds: TunedThresholds | None = None,
    intervals: Method | None = None,
) -> Scores:
    """Compute every score of ``records``.

    Args:
        records: one per case; none at all is allowed.
        classes: name of each class index.
        slice_iou: IoU of a slice-wise hit; the records must have been made with it.
        slice_threshold: lowest score of a slice-wise prediction that counts in the ``paper_`` scores.
        bootstrap_draws: draws of patients; 0 for no intervals.
        seed: of the draws.
        level: of the intervals.
        thresholds: where the thresholds come from that accepted the accepted lesions.
        intervals: how they are made; None is studentised with few patients, else percentile
            (:mod:`nndet_psma.evaluation.statistics.resampling`).

    Raises:
        ValueError: a case occurs twice, has a label without a name, another ``slice_iou``, or lacks an IoU.
    """
    check_records(records, classes, slice_iou)
    tables = build_tables(records, classes, slice_threshold=slice_threshold)
    patients = [record.patient_id for record in records]
    resampling = Resampling.of(patients, draws=bootstrap_draws, seed=seed, level=level, method=intervals)
    columns = DetectionColumns.of(records)
    operating = columns.rank([iou_key(OPERATING_IOU)], max_detections=None)[0]
    rows = _operating_rows(operating, resampling)
    return Scores(
        schema_version=SCHEMA_VERSION,
        num_cases=len(records),
        num_patients=len(set(patients)),
        num_lesions=sum(len(record.lesions) for record in records),
        num_predictions=sum(len(record.predictions) for record in records),
        classes=tuple(classes),
        slice_iou=slice_iou,
        slice_threshold=slice_threshold,
        level=level,
        bootstrap_draws=bootstrap_draws,
        seed=seed,
        scores=_with_intervals(tables, resampling),
        froc_rates=FP_RATES,
        froc_curves=_froc_curves(tables),
        operating_points=rows[0],
        accepted=score_accepted(
            tables.accepted, resampling, thresholds or TunedThresholds(), [r.case_id for r in records]
        ),
        optimistic=Optimistic(best_f1=rows[1]),
        other_hits=_other_hits(tables, resampling),
        strata=strata_scores(columns, tables.slices, classes, resampling),
        intervals=resampling.method,
    )


def _with_intervals(tables: ScoreTables, resampling: Resampling) -> dict[str, Score]:
    rows = drawn_values(tables, resampling.weights)
    return {
        key: scored(
            value,
            rows[key],
            resampling,
            "" if value is not None else why_undefined(key, tables),
            patients=patients_behind(key, tables),
        )
        for key, value in score_values(tables).items()
    }


def patients_behind(key: str, tables: ScoreTables) -> int | None:
    """How many patients the AUC over patients is about: those of the rarer kind, as it compares pairs of both kinds.

    None for every other score: each of its patients alone defines it, and so is counted.
    """
    if key != PATIENT_KEY:
        return None
    positives = int(tables.patients.positive.sum())
    return min(positives, len(tables.patients.positive) - positives)


def _other_hits(tables: ScoreTables, resampling: Resampling) -> dict[str, Score]:
    rows = drawn_others(tables, resampling.weights)
    return {
        other_key(rule): scored(froc_score(ranked), rows[other_key(rule)], resampling, "there are no lesions")
        for rule, ranked in tables.others.items()
    }


def _froc_curves(tables: ScoreTables) -> dict[str, tuple[float, ...]]:
    tables_of = {"": tables.pooled} | {f"{name}_": by_iou for name, by_iou in tables.by_class.items()}
    curves = {}
    for prefix, by_iou in tables_of.items():
        for iou in REPORT_IOUS:
            curve = froc_curve(by_iou[iou])
            if curve is not None:
                curves[f"{prefix}FROC_curve_IoU_{iou_key(iou)}"] = tuple(curve.sensitivity_at().tolist())
    return curves


def _operating_rows(
    ranked: RankedDetections, resampling: Resampling
) -> tuple[tuple[OperatingRow, ...], OperatingRow | None]:
    best = best_f1(operating_points(ranked))
    thresholds = [*OPERATING_THRESHOLDS, *([] if best is None else [best.threshold])]
    points = operating_points(ranked, thresholds)
    drawn = drawn_points(ranked, thresholds, resampling.weights)
    rows = []
    for index, point in enumerate(points):
        intervals = {
            name: resampling.interval(getattr(point, name), values[:, index], scale_of(name))
            for name, values in drawn.items()
        }
        chosen_on = NO_CASES if index < len(OPERATING_THRESHOLDS) else SCORED_CASES
        rows.append(OperatingRow(point, **intervals, chosen_on=chosen_on))
    count = len(OPERATING_THRESHOLDS)
    return tuple(rows[:count]), None if best is None else rows[count]


def upgraded_scores(content: Any) -> Any:
    """Plain ``scores.json`` of any version in today's layout; what it lacks stays out, ``schema_version`` stays."""
    if not isinstance(content, dict) or content.get("schema_version") != 1:
        return content
    content = dict(content)
    best = content.pop("best_f1", None)
    if isinstance(best, dict):
        best = {**best, "chosen_on": SCORED_CASES}
    return {
        **content,
        "scores": with_accepted_auc(content.get("scores")),
        "optimistic": {"chosen_on": SCORED_CASES, "best_f1": best},
    }


def with_accepted_auc(scores: Any) -> Any:
    """Scores by key with ``paper_auc`` under its new name where it is of the older meaning.

    Older files know one slice AUC, that of the accepted boxes; newer ones always have both.
    """
    if not isinstance(scores, dict) or "paper_auc_accepted" in scores or "paper_auc" not in scores:
        return scores
    return {"paper_auc_accepted" if key == "paper_auc" else key: value for key, value in scores.items()}


def check_records(records: Sequence[CaseRecord], classes: Sequence[str], slice_iou: float) -> None:
    """Refuse records that cannot be scored together.

    Raises:
        ValueError: a case occurs twice, has a label without a name or another ``slice_iou``.
    """
    names, times = np.unique([record.case_id for record in records], return_counts=True)
    if (times > 1).any():
        raise ValueError(f"cases occur twice: {', '.join(names[times > 1])}")
    for record in records:
        labels = {lesion.label for lesion in record.lesions}
        labels |= {prediction.label for prediction in record.predictions}
        if not labels <= set(range(len(classes))):
            raise ValueError(f"{record.case_id}: labels {sorted(labels)}, but classes are {list(classes)}")
        if record.slices is not None and record.slices.iou != slice_iou:
            raise ValueError(
                f"{record.case_id}: slice-wise hits were made at IoU {record.slices.iou}, not {slice_iou}"
            )
