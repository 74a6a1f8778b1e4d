"""Two models that judged the same: paired differences over draws of patients, McNemar's exact test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.detection.compare import Difference, Drawn, difference_of
from nndet_psma.evaluation.judgements.row import JudgedRow, scored_rows
from nndet_psma.evaluation.judgements.scores import JudgementTable, class_auc, patients_of_both
from nndet_psma.evaluation.judgements.shares import ratio
from nndet_psma.evaluation.statistics.reader_study import mcnemar
from nndet_psma.evaluation.statistics.resampling import Method, Resampling


@dataclass(frozen=True)
class JudgementComparison:
    """Two models on the same objects.

    Attributes:
        first: name of the first model.
        second: name of the second.
        num_objects: scored in both.
        num_patients: of these.
        only_one: objects that only one of the models judged; they are not compared.
        auc: difference of the AUC of each class that is told.
        accuracy: difference of the shares of right decisions.
        both_right: objects.
        only_first: objects about which only the first model is right.
        only_second: only the second.
        both_wrong: neither.
        mcnemar_p: exact and two-sided; it takes objects for independent, which those of one patient are not.
        bootstrap_draws: draws of patients.
        seed: of the draws.
        level: of the intervals.
        intervals: how they were made, "studentised" or "percentile".
    """

    first: str
    second: str
    num_objects: int
    num_patients: int
    only_one: int
    auc: dict[str, Difference]
    accuracy: Difference
    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    mcnemar_p: float
    bootstrap_draws: int
    seed: int
    level: float
    intervals: Method


def compare_judgements(
    first: Sequence[JudgedRow],
    second: Sequence[JudgedRow],
    classes: Sequence[str],
    *,
    names: tuple[str, str] = ("first", "second"),
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    intervals: Method | None = None,
) -> JudgementComparison:
    """Compare two models on the objects that both judged; a draw takes the same patients for both.

    Args:
        first: rows of the first model.
        second: rows of the second.
        classes: all names, in the order of the data set.
        names: of the models.
        draws: of patients.
        seed: of the draws.
        level: of the intervals.
        intervals: how they are made; None is studentised with few patients, else percentile.

    Raises:
        ValueError: the models were scored against different truths or patients.
    """
    ours, theirs = (
        {(row.case_id, row.object_id): row for row in scored_rows(rows)} for rows in (first, second)
    )
    shared = [key for key in ours if key in theirs]
    for key in shared:
        if (ours[key].truth, ours[key].patient_id) != (theirs[key].truth, theirs[key].patient_id):
            raise ValueError(f"{key[0]}: the models were scored against different truths or patients")
    patients = [ours[key].patient_id for key in shared]
    resampling = Resampling.of(patients, draws=draws, seed=seed, level=level, method=intervals)
    weights = resampling.weights
    here, there = (JudgementTable.of([side[key] for key in shared], classes) for side in (ours, theirs))
    told = range(1, 2) if len(classes) == 2 else range(len(classes))
    only_first, only_second = (
        int((one.right & ~other.right).sum()) for one, other in ((here, there), (there, here))
    )
    return JudgementComparison(
        first=names[0],
        second=names[1],
        num_objects=len(shared),
        num_patients=len(set(patients)),
        only_one=len(ours) + len(theirs) - 2 * len(shared),
        auc={
            classes[index]: difference_of(
                class_auc(here, index, weights),
                class_auc(there, index, weights),
                resampling,
                patients_of_both(here.truth == index, patients),
            )
            for index in told
        },
        accuracy=difference_of(_accuracy(here, weights), _accuracy(there, weights), resampling),
        both_right=int((here.right & there.right).sum()),
        only_first=only_first,
        only_second=only_second,
        both_wrong=int((~here.right & ~there.right).sum()),
        mcnemar_p=mcnemar(only_first, only_second),
        bootstrap_draws=draws,
        seed=seed,
        level=level,
        intervals=resampling.method,
    )


def _accuracy(table: JudgementTable, weights: NDArray[np.int64]) -> Drawn:
    value = float(table.right.mean()) if len(table.right) else None
    return value, ratio(weights @ table.right, weights.sum(axis=1))
