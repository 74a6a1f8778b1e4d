"""Scores of judgements: each class against the rest, and all classes together, with intervals over patients.

Rates belong to the tuned decision; AUC and Brier score to the probabilities of all objects. What is undefined is None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.detection.ranking import Weights
from nndet_psma.evaluation.detection.score import Score, scored
from nndet_psma.evaluation.judgements.row import JudgedRow, LeftOut, scored_rows
from nndet_psma.evaluation.judgements.shares import Share, ratio, share_of
from nndet_psma.evaluation.statistics.auc import dense_ranks, rank_auc, rank_aucs
from nndet_psma.evaluation.statistics.reader_study import delong_auc
from nndet_psma.evaluation.statistics.resampling import Method, Resampling

_BOTH = "needs objects of the class and others"
_NONE = "no object is scored"


@dataclass(frozen=True)
class ClassScores:
    """One class against the rest.

    Attributes:
        objects: of the class.
        auc: area under the ROC curve of its probability, interval over draws of patients.
        auc_delong: DeLong's interval of the same, which takes objects for independent; None where undefined.
        sensitivity: share of its objects that are called so.
        specificity: share of the other objects that are not called so.
        ppv: share of the objects called so that are of the class.
        npv: share of the objects not called so that are not of the class.
        f1: harmonic mean of sensitivity and PPV.
        brier: mean squared difference of its probability and the truth (1 or 0); 0 is best.
    """

    objects: int
    auc: Score
    auc_delong: tuple[float, float] | None
    sensitivity: Share
    specificity: Share
    ppv: Share
    npv: Share
    f1: Score
    brier: Score


@dataclass(frozen=True)
class Baseline:
    """Always the same class: the one that is most frequent among the scored objects.

    Attributes:
        decision: the class.
        accuracy: share of its objects.
    """

    decision: str
    accuracy: Share


@dataclass(frozen=True)
class JudgementScores:
    """All scores.

    Attributes:
        unit: what a row is, "object" or "case".
        num_cases: with a scored row.
        num_patients: likewise.
        num_objects: scored rows.
        classes: names in the order of the data set.
        left_out: what is not scored.
        confusion: number of rows by truth, then decision.
        accuracy: share of right decisions.
        balanced_accuracy: mean over the classes that occur of the share of right decisions; needs two such classes.
        brier: half the squared differences of probabilities and truth, summed over the classes: 0 is best, 1 worst; of
            two classes the usual Brier score.
        by_class: each class against the rest.
        majority: the baseline; None without rows.
        bootstrap_draws: draws of patients.
        seed: of the draws.
        level: of the intervals.
        intervals: how they were made, "studentised" or "percentile".
    """

    unit: str
    num_cases: int
    num_patients: int
    num_objects: int
    classes: list[str]
    left_out: LeftOut
    confusion: dict[str, dict[str, int]]
    accuracy: Share
    balanced_accuracy: Score
    brier: Score
    by_class: dict[str, ClassScores]
    majority: Baseline | None
    bootstrap_draws: int
    seed: int
    level: float
    intervals: Method

    @property
    def shown(self) -> list[str]:
        """Classes to be told one by one: of two the second, for the first only mirrors it."""
        return self.classes[1:] if len(self.classes) == 2 else self.classes


def score_judgements(
    rows: Sequence[JudgedRow],
    classes: Sequence[str],
    *,
    unit: str = "object",
    left_out: LeftOut | None = None,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    intervals: Method | None = None,
) -> JudgementScores:
    """Score the rows whose truth is known.

    Args:
        rows: judged objects.
        classes: all names, in the order of the data set.
        unit: what a row is.
        left_out: what is not scored; told beside the scores.
        draws: of patients.
        seed: of the draws.
        level: of the intervals.
        intervals: how they are made; None is studentised with few patients, else percentile.

    Raises:
        ValueError: a truth, decision or probability names another class.
    """
    known = scored_rows(rows)
    table = JudgementTable.of(known, classes)
    patients = [row.patient_id for row in known]
    resampling = Resampling.of(patients, draws=draws, seed=seed, level=level, method=intervals)
    majority = Counter(row.truth for row in known)
    best = max(classes, key=lambda name: majority[name]) if known else None
    share = partial(
        share_of, asked=np.ones(len(known), dtype=bool), resampling=resampling, clustered=table.clustered
    )
    return JudgementScores(
        unit=unit,
        num_cases=len({row.case_id for row in known}),
        num_patients=len({row.patient_id for row in known}),
        num_objects=len(known),
        classes=list(classes),
        left_out=left_out or LeftOut(),
        confusion=table.confusion(),
        accuracy=share(table.right),
        balanced_accuracy=_balanced(table, resampling),
        brier=_mean(table.squared.sum(axis=1) / 2, resampling),
        by_class={name: _class_scores(table, index, resampling) for index, name in enumerate(table.classes)},
        majority=None
        if best is None
        else Baseline(
            best,
            share(table.truth == classes.index(best)),
        ),
        bootstrap_draws=draws,
        seed=seed,
        level=level,
        intervals=resampling.method,
    )


@dataclass(frozen=True)
class JudgementTable:
    """Rows as arrays.

    Attributes:
        classes: names.
        truth: ``[N]`` index of the true class.
        decision: ``[N]`` index of the class that was called.
        probabilities: ``[N, C]``.
        patients: ``[N]`` patient of each row.
    """

    classes: list[str]
    truth: NDArray[np.int64]
    decision: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    patients: NDArray[np.str_]

    @classmethod
    def of(cls, rows: Sequence[JudgedRow], classes: Sequence[str]) -> JudgementTable:
        """From rows whose truth is known.

        Raises:
            ValueError: a row names a class that is not in ``classes``.
        """
        names = list(classes)
        foreign = {name for row in rows for name in (row.truth, row.decision, *row.probabilities)} - set(
            names
        )
        if foreign:
            raise ValueError(f"{sorted(map(str, foreign))[0]} is none of the classes {', '.join(names)}")
        return cls(
            names,
            np.array([names.index(str(row.truth)) for row in rows], dtype=np.int64),
            np.array([names.index(row.decision) for row in rows], dtype=np.int64),
            np.array([[row.probabilities.get(name, 0.0) for name in names] for row in rows]).reshape(
                len(rows), len(names)
            ),
            np.array([row.patient_id for row in rows], dtype=str),
        )

    @property
    def clustered(self) -> bool:
        """Whether a patient has several rows."""
        return len(set(self.patients)) < len(self.patients)

    @property
    def right(self) -> NDArray[np.bool_]:
        """``[N]`` whether the decision is the truth."""
        found: NDArray[np.bool_] = self.truth == self.decision
        return found

    @property
    def squared(self) -> NDArray[np.float64]:
        """``[N, C]`` squared difference of probability and truth."""
        found: NDArray[np.float64] = (self.probabilities - np.eye(len(self.classes))[self.truth]) ** 2
        return found

    def confusion(self) -> dict[str, dict[str, int]]:
        """Number of rows by truth, then decision."""
        return {
            name: {
                other: int(((self.truth == row) & (self.decision == column)).sum())
                for column, other in enumerate(self.classes)
            }
            for row, name in enumerate(self.classes)
        }


_CONSTANT = "constant: it ranks nothing"


def class_auc(
    table: JudgementTable, index: int, weights: Weights
) -> tuple[float | None, NDArray[np.float64]]:
    """AUC of the probability of one class against the rest, and its values ``[D]`` in draws, NaN where undefined."""
    ranks, positive = dense_ranks(table.probabilities[:, index]), table.truth == index
    value = rank_auc(ranks, positive) if len(ranks) else None
    return value, rank_aucs(ranks, positive, weights)


def patients_of_both(positive: NDArray[np.bool_], patients: Sequence[str] | NDArray[np.str_]) -> int:
    """How many patients an AUC is about: those with rows of the rarer kind, as it compares pairs of both kinds."""
    names = np.asarray(patients, dtype=str)
    return min(len(set(names[positive])), len(set(names[~positive])))


def _class_scores(table: JudgementTable, index: int, resampling: Resampling) -> ClassScores:
    positive, called = table.truth == index, table.decision == index
    value, drawn = class_auc(table, index, resampling.weights)
    behind = patients_of_both(positive, table.patients)
    share = partial(share_of, resampling=resampling, clustered=table.clustered)
    auc = scored(value, drawn, resampling, _BOTH, patients=behind)
    delong = delong_auc(table.probabilities[:, index], positive, level=resampling.level)[1]
    if value is not None and np.ptp(table.probabilities[:, index]) == 0:
        # says the same of everything: its AUC is 0.5 whoever the patients are
        auc, delong = Score(value, None, None, why=_CONSTANT), None
    return ClassScores(
        objects=int(positive.sum()),
        auc=auc,
        auc_delong=delong,
        sensitivity=share(called, positive),
        specificity=share(~called, ~positive),
        ppv=share(positive, called),
        npv=share(~positive, ~called),
        f1=_f1(positive, called, resampling),
        brier=_mean(table.squared[:, index], resampling),
    )


def _f1(positive: NDArray[np.bool_], called: NDArray[np.bool_], resampling: Resampling) -> Score:
    weights = resampling.weights
    both, either = positive & called, positive.astype(np.int64) + called
    value = None if either.sum() == 0 else float(2 * both.sum() / either.sum())
    return scored(
        value, ratio(2 * (weights @ both), weights @ either), resampling, "no object of it, none called so"
    )


def _balanced(table: JudgementTable, resampling: Resampling) -> Score:
    """Mean over the classes that occur; a draw that lacks one of them is undefined."""
    present = [index for index in range(len(table.classes)) if (table.truth == index).any()]
    if len(present) < 2:
        return scored(None, np.zeros(0), resampling, "needs objects of two classes")
    of_class = [table.truth == index for index in present]
    value = float(np.mean([table.right[members].mean() for members in of_class]))
    weights = resampling.weights
    drawn = np.mean([ratio(weights @ (table.right & each), weights @ each) for each in of_class], axis=0)
    behind = min(len(set(table.patients[each])) for each in of_class)
    return scored(value, drawn, resampling, "", patients=behind)


def _mean(values: NDArray[np.float64], resampling: Resampling) -> Score:
    weights = resampling.weights
    if len(values) == 0:
        return scored(None, np.zeros(0), resampling, _NONE)
    return scored(float(values.mean()), ratio(weights @ values, weights.sum(axis=1)), resampling, "")
