"""What each step is worth: detector alone, with zone and HU filter, with window bagging (Xu et al. 2023, table 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.artifacts.raw_predictions import RawPrediction
from nndet_psma.evaluation.detection.record import CaseRecord
from nndet_psma.evaluation.detection.scores import Score, score_records
from nndet_psma.inference.postprocessing import make_prediction
from nndet_psma.postproc.steps.order import without_filters
from nndet_psma.postproc.steps.settings import PostprocSettings

COLUMNS = (
    "AP_IoU_0.10_MaxDet_100",
    "paper_sensitivity",
    "paper_precision",
    "paper_f1",
    "paper_auc",
    "paper_auc_accepted",
)


@dataclass(frozen=True)
class AblationRow:
    """One row: which voters, which steps, and the scores of ``COLUMNS``."""

    voters: str
    filters: bool
    bagging: bool
    scores: dict[str, Score]


def ablation(
    raw: Sequence[RawPrediction],
    settings: PostprocSettings,
    classes: dict[str, str],
    to_record: Callable[[Prediction], CaseRecord],
    *,
    bootstrap_draws: int,
    seed: int,
) -> list[AblationRow]:
    """Rows for every voter alone without and with filters, then all voters bagged.

    All rows use the tuned score threshold; a row without filters leaves every filter out but suppression and score
    threshold. AP and ``paper_auc`` rank the candidates of the row, whatever their score. Thresholds were tuned on
    validation cases for the whole pipeline, not for each row as in the paper.
    """
    names = list(raw[0].voters) if raw else []
    plain = replace(settings, steps=without_filters(settings.steps), min_votes=1)
    filtered = replace(settings, min_votes=1)
    variants = [(name, False, plain) for name in names] + [(name, True, filtered) for name in names]

    def scores(predictions: Sequence[RawPrediction], variant: PostprocSettings) -> dict[str, Score]:
        records = [to_record(make_prediction(each, variant, classes)) for each in predictions]
        found = score_records(
            records,
            classes=list(classes.values()),
            slice_iou=settings.hit_iou,
            bootstrap_draws=bootstrap_draws,
            seed=seed,
        ).scores
        return {column: found[column] for column in COLUMNS}

    rows = []
    for name, filters, variant in variants:
        alone = [RawPrediction(each.meta, {name: each.voters[name]}) for each in raw]
        rows.append(AblationRow(name, filters, False, scores(alone, variant)))
    if len(names) > 1:
        rows.append(AblationRow("all", True, True, scores(raw, settings)))
    return rows
