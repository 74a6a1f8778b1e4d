"""What may be asked of a score besides its area: patients, strata, probabilities, other scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.statistics.auc import dense_ranks, rank_aucs, stratified_auc
from nndet_psma.evaluation.statistics.bootstrap import interval_of
from nndet_psma.evaluation.statistics.calibration import calibration
from nndet_psma.evaluation.statistics.decision_curve import decision_curve
from nndet_psma.evaluation.statistics.multiple_tests import bonferroni, holm
from nndet_psma.evaluation.statistics.reader_study import (
    Pair,
    decided_scores,
    decision_threshold,
    delong_auc,
    delong_difference,
    mcnemar,
    sensitive_threshold,
)
from nndet_psma.evaluation.statistics.resampling import Resampling
from nndet_psma.evaluation.statistics.student_interval import Scale


@dataclass(frozen=True)
class RocQuestions:
    """What to tell besides :func:`~nndet_psma.evaluation.statistics.reader_study.study_scores`.

    Attributes:
        patients: ``[N]`` patient of each row: intervals that draw patients.
        strata: ``[N]`` stratum of each row: area within each, and over the pairs inside strata.
        others: further score columns ``[N]`` by name: every pair of columns is compared.
        stratified_replicates: draws of positives and negatives apart, for an interval of the area (as pROC draws).
        at_sensitivity: rates at the highest threshold that reaches it.
        calibration: of probabilities.
        decision_curve: of probabilities.
        draws: of patients.
        seed: of all draws.
        level: of the intervals.
    """

    patients: Sequence[str] | None = None
    strata: Sequence[str] | None = None
    others: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    stratified_replicates: int = 0
    at_sensitivity: float | None = None
    calibration: bool = False
    decision_curve: bool = False
    draws: int = 1000
    seed: int = 0
    level: float = 0.95


def roc_answers(
    truth: NDArray[np.bool_], scores: NDArray[np.float64], asked: RocQuestions, name: str = "score"
) -> dict[str, object]:
    """A key for everything that is asked, null where undefined.

    Args:
        truth: ``[N]``.
        scores: ``[N]``, high for yes.
        asked: what to tell.
        name: of the score column, in comparisons.
    """
    answers: dict[str, object] = {}
    if asked.stratified_replicates:
        answers["auc_stratified_ci95"] = stratified_interval(
            truth, scores, draws=asked.stratified_replicates, seed=asked.seed, level=asked.level
        )
    if asked.patients is not None:
        answers["by_patient"] = _by_patient(truth, scores, asked)
    if asked.strata is not None:
        answers |= _within_strata(truth, scores, asked)
    if asked.at_sensitivity is not None:
        answers["at_sensitivity"] = _at_sensitivity(truth, scores, asked.at_sensitivity, asked.level)
    if asked.calibration:
        answers["calibration"] = asdict(calibration(scores, truth))
    if asked.decision_curve:
        answers["decision_curve"] = [asdict(row) for row in decision_curve(scores, truth)]
    if asked.others:
        answers["comparisons"] = comparisons(truth, {name: scores, **asked.others}, level=asked.level)
    return answers


def stratified_interval(
    truth: NDArray[np.bool_], scores: NDArray[np.float64], *, draws: int, seed: int = 0, level: float = 0.95
) -> Pair | None:
    """Percentiles of the area over draws of rows that keep the numbers of positives and negatives."""
    if truth.all() or not truth.any():
        return None
    rng = np.random.default_rng(seed)
    weights = np.zeros((draws, len(truth)), dtype=np.int64)
    for rows in (np.flatnonzero(truth), np.flatnonzero(~truth)):
        weights[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=draws)
    interval = interval_of(rank_aucs(dense_ranks(scores), truth, weights), level=level)
    return None if interval.low is None or interval.high is None else (interval.low, interval.high)


def comparisons(
    truth: NDArray[np.bool_], columns: Mapping[str, NDArray[np.float64]], *, level: float = 0.95
) -> list[dict[str, object]]:
    """Every pair of columns: McNemar's test of decisions, DeLong's of areas, each adjusted for the pairs."""
    right = {}
    for name, scores in columns.items():
        threshold = decision_threshold(scores, truth)
        if threshold is None:
            return []
        right[name] = (scores >= threshold) == truth
    pairs = list(combinations(columns, 2))
    areas = [delong_difference(columns[a], columns[b], truth, level=level) for a, b in pairs]
    decisions = [
        mcnemar(int((right[a] & ~right[b]).sum()), int((~right[a] & right[b]).sum())) for a, b in pairs
    ]
    result = []
    for index, (a, b) in enumerate(pairs):
        row: dict[str, object] = {"first": a, "second": b}
        row |= {"auc_difference": areas[index].value, "auc_difference_ci95": areas[index].interval}
        for test, p_values in (("mcnemar", decisions), ("delong", [area.p for area in areas])):
            row[f"{test}_p"] = p_values[index]
            known = [p for p in p_values if p is not None]
            if len(known) == len(pairs):
                row[f"{test}_p_bonferroni"] = bonferroni(known)[index]
                row[f"{test}_p_holm"] = holm(known)[index]
        result.append(row)
    return result


def _by_patient(
    truth: NDArray[np.bool_], scores: NDArray[np.float64], asked: RocQuestions
) -> dict[str, object]:
    patients = np.asarray(asked.patients, dtype=str)
    resampling = Resampling.of(patients.tolist(), draws=asked.draws, seed=asked.seed, level=asked.level)
    kinds = [len(set(patients[rows].tolist())) for rows in (truth, ~truth)]
    answers: dict[str, object] = {"patients": len(set(patients.tolist())), "intervals": resampling.method}
    area = delong_auc(scores, truth)[0]
    drawn = rank_aucs(dense_ranks(scores), truth, resampling.weights)
    answers["auc_ci95"] = _ends(resampling, area, drawn, min(kinds))
    threshold = decision_threshold(scores, truth)
    if threshold is None:
        return answers
    called = scores >= threshold
    everything = np.ones(len(truth), dtype=bool)
    for name, hit, among in (
        ("sensitivity", called, truth),
        ("specificity", ~called, ~truth),
        ("ppv", truth, called),
        ("npv", ~truth, ~called),
        ("accuracy", called == truth, everything),
    ):
        counts = resampling.weights @ among
        drawn = np.divide(
            resampling.weights @ (hit & among), counts, out=np.full(len(counts), np.nan), where=counts > 0
        )
        value = float(hit[among].mean()) if among.any() else None
        answers[f"{name}_ci95"] = _ends(resampling, value, drawn, None)
    return answers


def _within_strata(
    truth: NDArray[np.bool_], scores: NDArray[np.float64], asked: RocQuestions
) -> dict[str, object]:
    names, strata = np.unique(np.asarray(asked.strata, dtype=str), return_inverse=True)
    table = {}
    for index, name in enumerate(names.tolist()):
        rows = strata == index
        area, interval = delong_auc(scores[rows], truth[rows], level=asked.level)
        table[name] = {
            "rows": int(rows.sum()),
            "positives": int(truth[rows].sum()),
            "auc": area,
            "auc_ci95": interval,
        }
    ranks = dense_ranks(scores)
    pooled = float(stratified_auc(ranks, truth, strata)[0])
    value = None if np.isnan(pooled) else pooled
    patients = asked.patients or [str(row) for row in range(len(truth))]
    resampling = Resampling.of(patients, draws=asked.draws, seed=asked.seed, level=asked.level)
    drawn = stratified_auc(ranks, truth, strata, resampling.weights)
    about = [len(set(np.asarray(patients)[kind].tolist())) for kind in (truth, ~truth)]
    return {
        "stratified_auc": value,
        "stratified_auc_ci95": _ends(resampling, value, drawn, min(about)),
        "strata": table,
    }


def _at_sensitivity(
    truth: NDArray[np.bool_], scores: NDArray[np.float64], wanted: float, level: float
) -> dict[str, object] | None:
    threshold = sensitive_threshold(scores, truth, wanted)
    if threshold is None:
        return None
    return {
        "wanted": wanted,
        "threshold": threshold,
        **decided_scores(scores >= threshold, truth, level=level),
    }


def _ends(
    resampling: Resampling,
    value: float | None,
    drawn: NDArray[np.float64],
    patients: int | None,
    scale: Scale = "share",
) -> Pair | None:
    interval = resampling.interval(value, drawn, scale, patients=patients)
    return None if interval.low is None or interval.high is None else (interval.low, interval.high)
