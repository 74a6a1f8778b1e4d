"""Patient-level AUC: does the highest score of a patient tell whether the patient has any lesion?

Patient score: highest score of any prediction in any case of the patient, 0 without predictions. Positive:
any lesion in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.detection.ranking import Weights
from nndet_psma.evaluation.detection.record import CaseRecord
from nndet_psma.evaluation.statistics.auc import dense_ranks, rank_auc


@dataclass(frozen=True)
class PatientTable:
    """One row per patient, in order of first appearance.

    Attributes:
        scores: ``[N]`` highest score.
        positive: ``[N]`` has a lesion.
        first_case: ``[N]`` index of the patient's first case; its weight is the patient's.
    """

    scores: NDArray[np.float64]
    positive: NDArray[np.bool_]
    first_case: NDArray[np.int64]


def patient_table(records: Sequence[CaseRecord]) -> PatientTable:
    """Gather the cases of each patient."""
    scores: dict[str, float] = {}
    positive: dict[str, bool] = {}
    first_case: dict[str, int] = {}
    for case, record in enumerate(records):
        patient = record.patient_id
        best = max((prediction.score for prediction in record.predictions), default=0.0)
        scores[patient] = max(scores.get(patient, 0.0), best)
        positive[patient] = positive.get(patient, False) or bool(record.lesions)
        first_case.setdefault(patient, case)
    return PatientTable(
        np.array(list(scores.values()), dtype=np.float64),
        np.array(list(positive.values()), dtype=bool),
        np.array(list(first_case.values()), dtype=np.int64),
    )


def patient_auc(table: PatientTable, weights: Weights | None = None) -> float | None:
    """AUC over patients; None when all are positive or all negative.

    Args:
        table: from :func:`patient_table`.
        weights: ``[C]`` how often each *case* counts; the cases of one patient count equally often.
    """
    times = None if weights is None else weights[table.first_case]
    return rank_auc(dense_ranks(table.scores), table.positive, times)
