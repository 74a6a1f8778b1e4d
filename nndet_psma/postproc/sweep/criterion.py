"""What a sweep maximises, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.errors import UserError

_KNOWN = (
    "f1, sensitivity@precision=P, sensitivity@fp=N, precision@sensitivity=S, ap, froc, auc, patient_auc, "
    "map (boxes in 3D)"
)
RANKINGS = ("auc", "patient_auc")
"""Criteria that rank slices or patients by their best candidate: counts of boxes cannot tell them."""

CURVES = ("ap", "froc", "map", *RANKINGS)
"""Criteria that judge all score thresholds of a setting together."""

_FROC_RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)
_CONSTRAINED = re.compile(r"(sensitivity@precision|sensitivity@fp|precision@sensitivity)=(\d+\.?\d*|\.\d+)")


@dataclass(frozen=True)
class Criterion:
    """A metric to maximise, under a limit on another one if ``limited`` is set.

    The paper also reports "best sensitivity" and "best precision"; taken alone those are won by keeping
    everything or one sure box, so here they come with a limit on their counterpart.

    Attributes:
        metric: ``f1``, ``sensitivity``, ``precision``; or one of :data:`CURVES`, which judge all score thresholds
            together.
        limited: ``precision``, ``sensitivity`` (at least ``limit``), ``fp_per_case`` (at most), or ``None``.
        limit: the limit.
    """

    metric: str
    limited: str | None = None
    limit: float = 0.0

    @property
    def of_curve(self) -> bool:
        """Whether it judges all score thresholds of a setting together; the threshold is then taken by F1."""
        return self.metric in CURVES

    @property
    def of_ranking(self) -> bool:
        """Whether it ranks slices or patients; see :mod:`nndet_psma.postproc.sweep.image_ranking`."""
        return self.metric in RANKINGS

    def value(self, metrics: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Value of each setting; negative where the limit is missed, the nearer to 0 the less it is missed.

        Args:
            metrics: metric name -> array, all of one shape, score thresholds along the last axis.

        Raises:
            UserError: ``map``, which slice boxes do not have.
            ValueError: it ranks, which counts do not tell.
        """
        if self.of_ranking:
            raise ValueError(f"criterion {self.metric} ranks candidates; counts of boxes do not tell it")
        if self.metric == "map":
            raise UserError(
                "criterion map judges boxes in 3D, and this detector looks at slices",
                remedy="Use sweep.criterion=ap",
            )
        if self.of_curve:
            curve = _average_precision if self.metric == "ap" else _froc
            return np.broadcast_to(curve(metrics)[..., None], metrics["f1"].shape)
        wanted = metrics[self.metric]
        if self.limited is None:
            return wanted
        reached = metrics[self.limited]
        if self.limited == "fp_per_case":
            # limit / reached - 1: from 0 at the limit towards -1 with ever more false positives
            missed = self.limit / np.maximum(reached, max(self.limit, 1e-9)) - 1
            return np.where(reached <= self.limit, wanted, missed)
        return np.where(reached >= self.limit, wanted, reached - self.limit)


def parse_criterion(name: str) -> Criterion:
    """Read the name of a criterion, such as ``f1`` or ``sensitivity@precision=0.3``.

    The others: ``sensitivity@fp=4``, ``precision@sensitivity=0.8``, ``ap``, ``froc``, ``auc``, ``patient_auc``.
    ``fp`` counts false positive slice boxes per case. ``ap`` is the area under slice precision over lesion
    sensitivity, each point with the best precision at its sensitivity or above; ``froc`` the mean of the best
    sensitivities with at most 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positive slice boxes per case. Both see the score
    thresholds that are tried.
    ``auc`` and ``patient_auc`` rank slices and patients by their best candidate, as the evaluation does
    (:mod:`nndet_psma.postproc.sweep.image_ranking`): they see the filters and the vote overlap alone, so the number of
    votes is left to the rule for ties and the score threshold to F1.

    For detectors on volumes everything counts lesions and boxes in 3D instead, and ``ap``, ``froc`` and ``map`` (the
    mean over IoU 0.10 to 0.50, nnDetection's target) are those of the evaluation, too: see
    :mod:`nndet_psma.postproc.sweep.volumes.sweep`.

    Raises:
        UserError: unknown name, or a precision or sensitivity above 1.
    """
    if name in ("f1", *CURVES):
        return Criterion(name)
    parsed = _CONSTRAINED.fullmatch(name)
    if parsed is None:
        raise UserError(f"unknown sweep criterion '{name}'", expected=f"one of {_KNOWN}")
    metric, limited = parsed[1].split("@")
    limit = float(parsed[2])
    if limited != "fp" and limit > 1:
        raise UserError(f"sweep criterion '{name}' can never be met", expected=f"{limited} from 0 to 1")
    return Criterion(metric, "fp_per_case" if limited == "fp" else limited, limit)


def _average_precision(metrics: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    # sensitivity may rise with the threshold where a consensus box shrinks onto the lesion: sort first
    order = np.argsort(-metrics["sensitivity"], axis=-1, kind="stable")
    sensitivity = np.take_along_axis(metrics["sensitivity"], order, axis=-1)
    best = np.maximum.accumulate(np.take_along_axis(metrics["precision"], order, axis=-1), axis=-1)
    lower = np.concatenate([sensitivity[..., 1:], np.zeros_like(sensitivity[..., :1])], axis=-1)
    # of thresholds with equal sensitivity the last holds the best precision and alone has a width
    area: NDArray[np.float64] = ((sensitivity - lower) * best).sum(axis=-1)
    return area


def _froc(metrics: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    reached = [
        np.where(metrics["fp_per_case"] <= rate, metrics["sensitivity"], 0).max(axis=-1)
        for rate in _FROC_RATES
    ]
    mean: NDArray[np.float64] = np.mean(reached, axis=0)
    return mean
