"""Case-level scores under nnDetection's names: does a case hold a lesion at all?

The score of a case is its best candidate (0 without one). Decisions (F1, precision, recall, accuracy) are those of the
tuned thresholds: a case is called positive when a slice box was accepted. nnDetection decides at score 0.5 instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nndet_psma.evaluation.detection.record import CaseRecord
from nndet_psma.evaluation.statistics.auc import auc


def case_scores(records: Sequence[CaseRecord], target_class: int | None = None) -> dict[str, float | None]:
    """``auc_case``, ``ap_case``, ``f1_case``, ``prec_case``, ``rec_case``, ``acc_case``; None where undefined.

    Args:
        records: cases.
        target_class: class that counts (dataset.json); None counts every class.
    """
    truth = np.array([_holds(record, target_class) for record in records], dtype=bool)
    scores = np.array([_best(record, target_class) for record in records], dtype=np.float64)
    called = np.array([_called(record, target_class) for record in records], dtype=bool)
    hits = int((truth & called).sum())
    precision = hits / int(called.sum()) if called.any() else None
    recall = hits / int(truth.sum()) if truth.any() else None
    return {
        "auc_case": auc(scores, truth),
        "ap_case": _average_precision(scores, truth),
        "f1_case": _harmonic(precision, recall),
        "prec_case": precision,
        "rec_case": recall,
        "acc_case": float(np.mean(truth == called)) if len(records) else None,
    }


def _holds(record: CaseRecord, target: int | None) -> bool:
    return any(target is None or lesion.label == target for lesion in record.lesions)


def _best(record: CaseRecord, target: int | None) -> float:
    return max((p.score for p in record.predictions if target is None or p.label == target), default=0.0)


def _called(record: CaseRecord, target: int | None) -> bool:
    if record.slices is None:
        return False
    return any(target is None or p.label == target for p in record.slices.predictions)


def _harmonic(precision: float | None, recall: float | None) -> float | None:
    if recall is None:
        return None
    if not precision or not recall:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def _average_precision(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Mean over the recall steps of the precision at each distinct score."""
    if not truth.any():
        return None
    thresholds = np.unique(scores)[::-1]
    recalls = [float((truth & (scores >= t)).sum() / truth.sum()) for t in thresholds]
    precisions = [float((truth & (scores >= t)).sum() / (scores >= t).sum()) for t in thresholds]
    steps = np.diff([0.0, *recalls])
    return float((steps * precisions).sum())
