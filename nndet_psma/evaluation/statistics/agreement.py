"""Staging of patients by a model against a reader, and of readers among each other (dwi2022)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from nndet_psma.evaluation.statistics.exact_interval import clopper_pearson
from nndet_psma.evaluation.statistics.kappa import Kappa, cohens_kappa_of, kappa_of_table
from nndet_psma.evaluation.statistics.proportion import Proportion
from nndet_psma.evaluation.statistics.reader_study import Confusion, delong_auc

Pair = tuple[float, float]


@dataclass(frozen=True)
class PatientAgreement:
    """A decision about patients against the truth.

    Attributes:
        counts: true and false positives and negatives.
        sensitivity: with Clopper and Pearson's interval.
        specificity: likewise.
        auc: of the scores; of a decision the mean of sensitivity and specificity. None without both kinds.
        auc_delong: its interval after DeLong.
        auc_exact: its exact binomial interval, as MedCalc and hence the paper give it: AUC times the number of patients
            taken for a count.
        kappa: Cohen's, decision against truth.
    """

    counts: Confusion
    sensitivity: Proportion
    specificity: Proportion
    auc: float | None
    auc_delong: Pair | None
    auc_exact: Pair | None
    kappa: Kappa


def patient_agreement(
    decision: ArrayLike, truth: ArrayLike, scores: ArrayLike | None = None, *, level: float = 0.95
) -> PatientAgreement:
    """Judge decisions ``[N]`` (True for N1) of patients.

    Args:
        decision: of the model.
        truth: of the reference.
        scores: high for N1, for example the short diameter of the largest node; None takes the decision.
        level: of the intervals.

    Raises:
        ValueError: the lengths differ.
    """
    called, positive = np.asarray(decision, dtype=bool), np.asarray(truth, dtype=bool)
    ranked = called.astype(np.float64) if scores is None else np.asarray(scores, dtype=np.float64)
    if not len(called) == len(positive) == len(ranked):
        raise ValueError("decisions, truth and scores of different lengths")
    counts = Confusion.of(called, positive)
    area, interval = delong_auc(ranked, positive, level=level)
    return PatientAgreement(
        counts,
        Proportion.of(counts.tp, counts.tp + counts.fn, level=level),
        Proportion.of(counts.tn, counts.tn + counts.fp, level=level),
        area,
        interval,
        None if area is None else binomial_auc_interval(area, len(positive), level=level),
        kappa_of_table([[counts.tp, counts.fp], [counts.fn, counts.tn]], level=level),
    )


def binomial_auc_interval(auc: float, total: int, *, level: float = 0.95) -> Pair:
    """Clopper and Pearson's interval with ``auc * total`` of ``total`` as (broken) count.

    Raises:
        ValueError: ``auc`` outside [0, 1] or ``total`` below 1.
    """
    if not (0 <= auc <= 1 and total >= 1):
        raise ValueError(f"no AUC of patients: {auc} of {total}")
    return clopper_pearson(auc * total, total, level=level) or (0.0, 1.0)


def reader_agreement(
    readings: Mapping[str, Sequence[Hashable]],
    *,
    order: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> dict[tuple[str, str], Kappa]:
    """Kappa of every pair of readers (the model is one), in the order given.

    Args:
        readings: reader to categories ``[N]`` of the same patients in the same order.
        order: all categories; None takes those that occur.
        level: of the intervals.

    Raises:
        ValueError: fewer than two readers, or of different numbers of patients.
    """
    if len(readings) < 2:
        raise ValueError("agreement needs at least two readers")
    return {
        (one, other): cohens_kappa_of(readings[one], readings[other], order=order, level=level)
        for one, other in combinations(readings, 2)
    }
