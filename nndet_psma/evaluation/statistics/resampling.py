"""Draws of patients, and the interval that is made from them: studentised for few patients, percentiles for many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.detection.ranking import Weights
from nndet_psma.evaluation.statistics.bootstrap import Interval, interval_of, patient_weights
from nndet_psma.evaluation.statistics.student_interval import Scale, Spread, student_ends

Method = Literal["percentile", "studentised"]

MANY_PATIENTS = 100
"""From so many patients on percentiles cover what they promise, and need no scale."""

FEWEST_PATIENTS = 10
"""Below, intervals are rough and a p-value would only seem to be one: two patients can agree on anything by chance."""


@dataclass(frozen=True)
class Resampling:
    """How often each case counts in every row to be scored, and how the scores of the rows become an interval.

    Attributes:
        weights: ``[D + P, C]``: ``draws`` bootstrap draws, then (studentised only) each of ``P`` patients alone.
            A score is about the patients of whom each alone defines it: one without lesions says nothing about a
            sensitivity. No rows with fewer than two patients.
        draws: rows that are draws.
        level: of the intervals.
        method: "studentised" (:mod:`nndet_psma.evaluation.statistics.student_interval`) or "percentile".
        num_patients: all that were drawn from.
    """

    weights: Weights
    draws: int
    level: float
    method: Method
    num_patients: int

    @classmethod
    def of(
        cls,
        patients: Sequence[str],
        *,
        draws: int,
        seed: int,
        level: float = 0.95,
        method: Method | None = None,
    ) -> Resampling:
        """Draw patients.

        Args:
            patients: ``[C]`` patient of each case.
            draws: of the bootstrap; 0 for no intervals.
            seed: the same seed gives the same draws.
            level: of the intervals.
            method: None is studentised below :data:`MANY_PATIENTS` patients, else percentile.

        Raises:
            ValueError: ``level`` lies outside (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie in (0, 1), got {level}")
        weights = patient_weights(patients, draws=draws, seed=seed)
        count = len(set(patients))
        chosen = method or ("studentised" if count < MANY_PATIENTS else "percentile")
        drawn = len(weights)
        if chosen == "studentised" and drawn:
            weights = np.concatenate([weights, _each_alone(patients)])
        return cls(weights, drawn, level, chosen, count)

    def interval(
        self,
        value: float | None,
        values: NDArray[np.float64],
        scale: Scale = "share",
        *,
        patients: int | None = None,
    ) -> Interval:
        """Interval of a statistic.

        Args:
            value: on the data; None when undefined, then there is no interval.
            values: ``[D + P]`` in each row of ``weights``, NaN where undefined.
            scale: of the statistic.
            patients: that the statistic is about; None counts those of whom each alone defines it, and when no single
                patient does (as an AUC over patients) the interval is that of percentiles.
        """
        drawn = values[: self.draws]
        plain = interval_of(drawn, level=self.level)
        about = self._about(values, patients)
        if value is None:
            return Interval(None, None, plain.draws, plain.undefined)
        if about is None:
            return plain
        low, high = student_ends(value, drawn, about, scale=scale, level=self.level) or (None, None)
        return Interval(low, high, plain.draws, plain.undefined)

    def spread(self, values: NDArray[np.float64], patients: int | None = None) -> Spread | None:
        """Standard error behind a studentised interval; None where the interval is none or made otherwise."""
        about = self._about(values, patients)
        return None if about is None else Spread.of(values[: self.draws], about)

    def _about(self, values: NDArray[np.float64], patients: int | None) -> int | None:
        """Patients of a studentised interval; None where percentiles are taken."""
        if self.method == "percentile" or self.draws == 0:
            return None
        if patients is not None:
            return patients
        return int((~np.isnan(values[self.draws :])).sum()) or None


def _each_alone(patients: Sequence[str]) -> Weights:
    names, patient_of_case = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    alone: Weights = (np.arange(len(names))[:, None] == patient_of_case.reshape(-1)).astype(np.int64)
    return alone
