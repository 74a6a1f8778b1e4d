"""One setting of the post-processing of 3D boxes, run case by case and scored as the evaluation scores it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nndet_psma.boxes.detections import Detections
from nndet_psma.postproc.steps.ranking import MAX_CANDIDATES, ranking_settings
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.steps.steps import postprocess_case
from nndet_psma.postproc.sweep.case import SweepCase
from nndet_psma.postproc.sweep.criterion import Criterion
from nndet_psma.postproc.sweep.result import SweepRow, SweepTable
from nndet_psma.postproc.sweep.slices.metrics import metrics_of
from nndet_psma.postproc.sweep.volumes.ranking import MAP_IOUS, RankedSettings, VolumeRanking

Judged = tuple[dict[str, float], float]
"""Sensitivity, precision, F1 and false positives per case of the accepted lesions, and the value of the criterion."""


@dataclass(frozen=True)
class VolumeFound:
    """What a search found.

    Attributes:
        settings: chosen.
        best: their row.
        rows: settings to be kept.
        num_settings: settings tried, with every score threshold.
        without: chosen with each group held out.
        table: every setting, where all were tried.
    """

    settings: PostprocSettings
    best: SweepRow
    rows: list[SweepRow]
    num_settings: int
    without: list[PostprocSettings]
    table: SweepTable | None


def judge_volumes(
    cases: Sequence[SweepCase], settings: Sequence[PostprocSettings], goal: Criterion
) -> Judged:
    """Score lesions in 3D.

    Args:
        cases: with 3D truth boxes.
        settings: of each case; they may differ, as where each case is scored with thresholds tuned on others.
        goal: what is asked for; curves rank every candidate, whatever the score threshold.
    """
    accepted = [
        postprocess_case(case.raw, own, spacing=case.spacing).lesions
        for case, own in zip(cases, settings, strict=True)
    ]
    hit_iou = settings[0].hit_iou
    boxes, true = _ranked(accepted, cases, (hit_iou,)).points(np.zeros(1), hit_iou)
    lesions = sum(case.num_lesions for case in cases)
    found = true.sum(axis=0)[0]
    metrics = metrics_of(boxes.sum(axis=0)[0], found, found, num_lesions=lesions, num_cases=len(cases))
    value = goal.value(metrics)[0] if not goal.of_curve else _curve(cases, settings, goal)
    return {name: float(each[0]) for name, each in metrics.items()}, float(value)


def _curve(cases: Sequence[SweepCase], settings: Sequence[PostprocSettings], goal: Criterion) -> float:
    candidates = [
        postprocess_case(case.raw, ranking_settings(own), spacing=case.spacing).lesions
        for case, own in zip(cases, settings, strict=True)
    ]
    ranked = _ranked(
        [each.select(np.arange(min(len(each), MAX_CANDIDATES))) for each in candidates],
        cases,
        curve_ious(goal, settings[0].hit_iou),
    )
    return float(curve_values(ranked, goal, settings[0].hit_iou)[0][0])


def curve_ious(goal: Criterion, hit_iou: float) -> tuple[float, ...]:
    """IoUs that a criterion and the choice of a score threshold look at, ascending."""
    return tuple(sorted({hit_iou, *(MAP_IOUS if goal.metric == "map" else ())}))


def curve_values(ranked: RankedSettings, goal: Criterion, hit_iou: float) -> list[np.ndarray]:
    """Value ``[F]`` of a criterion that judges whole curves: of all cases, then without each group."""
    if goal.of_ranking:
        return ranked.image_aucs(goal.metric)
    if goal.metric == "froc":
        return ranked.froc(hit_iou)
    return ranked.average_precisions(MAP_IOUS if goal.metric == "map" else (hit_iou,))


def _ranked(parts: Sequence[Detections], cases: Sequence[SweepCase], ious: Sequence[float]) -> RankedSettings:
    case = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    pooled = Detections.concatenate([plain(part) for part in parts])
    ranking = VolumeRanking(pooled, case, cases, np.zeros(len(cases), dtype=np.int64), ious)
    return ranking.under(np.ones((1, len(pooled)), dtype=bool))


def plain(boxes: Detections) -> Detections:
    """The same boxes without further columns."""
    return Detections(boxes.boxes, boxes.scores, boxes.labels)
