"""Every score of :mod:`nndet_psma.evaluation.detection.score_tables` in every bootstrap draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nndet_psma.evaluation.detection.draws import (
    DrawnCurves,
    Values,
    divided,
    drawn_auc,
    drawn_curves,
    drawn_share,
    mean_of_drawn,
)
from nndet_psma.evaluation.detection.froc import FP_RATES
from nndet_psma.evaluation.detection.paper_protocol import SliceTable
from nndet_psma.evaluation.detection.patient import PatientTable
from nndet_psma.evaluation.detection.ranking import RankedDetections, Weights
from nndet_psma.evaluation.detection.score_tables import (
    MAP_KEY,
    PAPER_KEYS,
    PATIENT_KEY,
    REPORT_IOUS,
    ScoreTables,
    ap_key,
    froc_key,
    other_key,
)
from nndet_psma.evaluation.statistics.auc import dense_ranks

_Family = Mapping[float, RankedDetections]


def drawn_values(tables: ScoreTables, draws: Weights) -> dict[str, Values]:
    """Values ``[D]`` of the keys of :func:`~nndet_psma.evaluation.detection.score_tables.score_values`; NaN where
    undefined.

    Args:
        tables: from :func:`~nndet_psma.evaluation.detection.score_tables.build_tables`.
        draws: ``[D, C]`` how often each case counts.
    """
    classes = {name: _curves(family, draws) for name, family in tables.by_class.items()}
    pooled = next(iter(classes.values())) if len(classes) == 1 else _curves(tables.pooled, draws)
    everything = [curve.average_precision for curves in classes.values() for curve in curves.values()]
    values = {MAP_KEY: _mean(everything, draws)}
    values |= {
        ap_key(iou): _mean([curves[iou].average_precision for curves in classes.values()], draws)
        for iou in REPORT_IOUS
    }
    values |= {froc_key(iou): pooled[iou].sensitivities.mean(axis=1) for iou in REPORT_IOUS}
    for name, curves in classes.items():
        values[f"{name}_{MAP_KEY}"] = _mean([curve.average_precision for curve in curves.values()], draws)
        values |= {f"{name}_{ap_key(iou)}": curves[iou].average_precision for iou in REPORT_IOUS}
        values |= {f"{name}_{froc_key(iou)}": curves[iou].sensitivities.mean(axis=1) for iou in REPORT_IOUS}
    return values | _paper_values(tables.slices, draws) | {PATIENT_KEY: _patient_auc(tables.patients, draws)}


def drawn_others(tables: ScoreTables, draws: Weights) -> dict[str, Values]:
    """FROC scores ``[D]`` under the further hit rules."""
    curves = drawn_curves(list(tables.others.values()), draws)
    return {
        other_key(rule): curve.sensitivities.mean(axis=1)
        for rule, curve in zip(tables.others, curves, strict=True)
    }


def _curves(family: _Family, draws: Weights) -> dict[float, DrawnCurves]:
    return dict(zip(family, drawn_curves(list(family.values()), draws, FP_RATES), strict=True))


def _mean(values: Sequence[Values], draws: Weights) -> Values:
    return mean_of_drawn(values) if values else np.full(len(draws), np.nan)


def _paper_values(table: SliceTable | None, draws: Weights) -> dict[str, Values]:
    if table is None:
        return {key: np.full(len(draws), np.nan) for key in PAPER_KEYS}
    sensitivity = drawn_share(table.lesion_hit, table.lesion_cases, draws)
    precision = drawn_share(table.prediction_hit, table.prediction_cases, draws)
    some = np.nan_to_num(precision)  # no prediction: F1 is 0 as long as there are lesions
    f1 = np.where(
        np.isnan(sensitivity), np.nan, np.nan_to_num(divided(2 * sensitivity * some, sensitivity + some))
    )
    auc, accepted = (
        np.full(len(draws), np.nan)
        if ranks is None
        else drawn_auc(ranks, table.image_positive, table.image_cases, draws)
        for ranks in (table.image_ranks, table.accepted_ranks)
    )
    return dict(zip(PAPER_KEYS, (sensitivity, precision, f1, auc, accepted), strict=True))


def _patient_auc(table: PatientTable, draws: Weights) -> Values:
    return drawn_auc(dense_ranks(table.scores), table.positive, table.first_case, draws)
