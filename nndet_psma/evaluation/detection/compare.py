"""Two models on the same cases: the difference of every score, with a paired interval and a p-value.

Paired: a draw takes the same patients for both models, so what makes a patient hard or easy cancels out. With few
patients interval and two-sided p-value are Student's with the standard error of the draws; p is below 0.05 exactly when
the 95 % interval leaves 0 out. With many patients, and where the draws do not vary, the interval lies between
percentiles of the difference over the draws, and p is twice the share of draws on the rarer side of 0 (a difference of
exactly 0 counts on both sides, and one draw is added to each count, so it is never 0); up to that one draw they agree.
p-values are not corrected for the number of scores, and there are none with fewer than ten patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.detection.accepted import accepted_values, drawn_accepted
from nndet_psma.evaluation.detection.drawn_scores import drawn_others, drawn_values
from nndet_psma.evaluation.detection.draws import Values
from nndet_psma.evaluation.detection.froc import froc_score
from nndet_psma.evaluation.detection.ranking import Weights
from nndet_psma.evaluation.detection.record import CaseRecord
from nndet_psma.evaluation.detection.score_tables import ScoreTables, build_tables, other_key, score_values
from nndet_psma.evaluation.detection.scores import check_records, patients_behind
from nndet_psma.evaluation.statistics.reader_study import mcnemar
from nndet_psma.evaluation.statistics.resampling import FEWEST_PATIENTS, Method, Resampling
from nndet_psma.evaluation.statistics.student_interval import Scale

Drawn = tuple[float | None, NDArray[np.float64]]
"""Value of a score, None when undefined, and in each row of the draws ``[D + P]``, NaN where undefined."""


@dataclass(frozen=True)
class Difference:
    """One score of two models.

    Attributes:
        first: value of the first model; None when undefined.
        second: value of the second.
        difference: first - second; None when either is undefined.
        ci_low: lower end of its interval; None when undefined, without draws, or with less than two patients behind it.
        ci_high: upper end, likewise.
        p: two-sided; None where there is no interval, or fewer than ten patients are behind it.
        undefined_draws: draws left out because a score was undefined in them.
    """

    first: float | None
    second: float | None
    difference: float | None
    ci_low: float | None = None
    ci_high: float | None = None
    p: float | None = None
    undefined_draws: int = 0


@dataclass(frozen=True)
class PatientTest:
    """McNemar's exact test on patients: is one model right about more patients?

    A patient is called positive when any of the cases has an accepted box (a slice-wise prediction); right is a call
    that agrees with whether there is a lesion.

    Attributes:
        both_right: patients.
        only_first: patients about whom only the first model is right.
        only_second: only the second.
        both_wrong: neither.
        p: two-sided, binomial; 1 when the models never differ; None with fewer than ten patients.
    """

    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    p: float | None


@dataclass(frozen=True)
class Comparison:
    """Two models on the same cases.

    Attributes:
        first: name of the first model.
        second: name of the second.
        num_cases: cases.
        num_patients: patients.
        bootstrap_draws: draws of patients.
        seed: of the draws.
        level: of the intervals.
        scores: difference of every score by its key; the rates of the accepted lesions are ``accepted_...``.
        patients: McNemar's test; None when a case has no slice-wise part.
        intervals: how they were made, "studentised" or "percentile"; files without it hold percentiles.
    """

    first: str
    second: str
    num_cases: int
    num_patients: int
    bootstrap_draws: int
    seed: int
    level: float
    scores: dict[str, Difference]
    patients: PatientTest | None
    intervals: Method = "percentile"


def compare_records(
    first: Sequence[CaseRecord],
    second: Sequence[CaseRecord],
    *,
    classes: Sequence[str],
    names: tuple[str, str] = ("first", "second"),
    slice_iou: float = 0.1,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    intervals: Method | None = None,
) -> Comparison:
    """Compare two models.

    Args:
        first: records of the first model.
        second: records of the second, of the same cases in any order.
        classes: name of each class index.
        names: of the models.
        slice_iou: IoU of a slice-wise hit; all records must have been made with it.
        draws: of patients; 0 for no intervals.
        seed: of the draws.
        level: of the intervals.
        intervals: how they are made; None is studentised with few patients, else percentile.

    Raises:
        ValueError: cases, patients or lesions differ, or records cannot be scored together.
    """
    second = _aligned(first, second)
    for records in (first, second):
        check_records(records, classes, slice_iou)
    patients = [record.patient_id for record in first]
    resampling = Resampling.of(patients, draws=draws, seed=seed, level=level, method=intervals)
    tables = [build_tables(records, classes) for records in (first, second)]
    here, there = (_values(each) for each in tables)
    rows_here, rows_there = (_drawn(each, resampling.weights) for each in tables)
    return Comparison(
        first=names[0],
        second=names[1],
        num_cases=len(first),
        num_patients=len(set(patients)),
        bootstrap_draws=draws,
        seed=seed,
        level=level,
        scores={
            key: difference_of(
                (here[key], rows_here[key]),
                (there[key], rows_there[key]),
                resampling,
                patients_behind(key, tables[0]),  # the same of both: same patients, same lesions
                scale="contrast" if "_fp_per_" in key else "difference",
            )
            for key in here
            if key in there
        },
        patients=patient_test(first, second),
        intervals=resampling.method,
    )


def paired_p(differences: NDArray[np.float64]) -> float | None:
    """Two-sided p-value of differences ``[D]`` over draws, NaN left out; None without any."""
    defined = differences[~np.isnan(differences)]
    if len(defined) == 0:
        return None
    rarer = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(defined) + 1))


def patient_test(first: Sequence[CaseRecord], second: Sequence[CaseRecord]) -> PatientTest | None:
    """McNemar's test on the same patients; None when a record has no slice-wise part."""
    if any(record.slices is None for record in (*first, *second)):
        return None
    right = [_right(first), _right(second)]
    table = [[0, 0], [0, 0]]
    for patient, is_right in right[0].items():
        table[is_right][right[1][patient]] += 1
    enough = len(right[0]) >= FEWEST_PATIENTS
    p = mcnemar(table[1][0], table[0][1]) if enough else None
    return PatientTest(table[1][1], table[1][0], table[0][1], table[0][0], p)


def _right(records: Sequence[CaseRecord]) -> dict[str, bool]:
    truth: dict[str, bool] = {}
    called: dict[str, bool] = {}
    for record in records:
        accepted = record.slices is not None and bool(record.slices.predictions)
        truth[record.patient_id] = truth.get(record.patient_id, False) or bool(record.lesions)
        called[record.patient_id] = called.get(record.patient_id, False) or accepted
    return {patient: truth[patient] == called[patient] for patient in truth}


def _values(tables: ScoreTables) -> dict[str, float | None]:
    others = {other_key(rule): froc_score(ranked) for rule, ranked in tables.others.items()}
    return accepted_values(tables.accepted) | score_values(tables) | others


def _drawn(tables: ScoreTables, draws: Weights) -> dict[str, Values]:
    everything = drawn_values(tables, draws) | drawn_others(tables, draws)
    return drawn_accepted(tables.accepted, draws) | everything


def difference_of(
    first: Drawn,
    second: Drawn,
    resampling: Resampling,
    patients: int | None = None,
    *,
    scale: Scale = "difference",
) -> Difference:
    """Paired difference of two shares or rates, with its interval and p-value.

    Args:
        first: value of the first model, and in each row of ``resampling.weights``.
        second: of the second.
        resampling: draws of patients, the same for both.
        patients: as in :meth:`~nndet_psma.evaluation.statistics.resampling.Resampling.interval`.
        scale: "difference" of shares, "contrast" of rates.
    """
    (here, rows_here), (there, rows_there) = first, second
    if here is None or there is None:
        return Difference(here, there, None)
    apart, rows = here - there, rows_here - rows_there
    interval = resampling.interval(apart, rows, scale, patients=patients)
    spread = resampling.spread(rows, patients)
    p = None
    behind = resampling.num_patients if patients is None else patients
    if interval.low is not None and behind >= FEWEST_PATIENTS:
        p = paired_p(rows[: resampling.draws]) if spread is None else spread.p(apart)
    return Difference(here, there, apart, interval.low, interval.high, p, interval.undefined)


def _aligned(first: Sequence[CaseRecord], second: Sequence[CaseRecord]) -> list[CaseRecord]:
    others = {record.case_id: record for record in second}
    names = {record.case_id for record in first}
    if names != set(others):
        raise ValueError(f"the models were not scored on the same cases: {sorted(names ^ set(others))}")
    for record in first:
        other = others[record.case_id]
        if (record.patient_id, _truth(record)) != (other.patient_id, _truth(other)):
            raise ValueError(
                f"{record.case_id}: the models were scored against different lesions or patients"
            )
    return [others[record.case_id] for record in first]


def _truth(record: CaseRecord) -> list[tuple[int, tuple[float, ...]]]:
    return [(lesion.label, lesion.box) for lesion in record.lesions]
