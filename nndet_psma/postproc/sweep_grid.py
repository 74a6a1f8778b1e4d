"""Which thresholds a sweep tries."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.plan import Plan
from nndet_psma.core.errors import UserError
from nndet_psma.postproc.hu_filter import QUANTILES
from nndet_psma.postproc.settings import PostprocSettings

MAX_SCORE_THRESHOLDS = 64


@dataclass(frozen=True)
class SweepGrid:
    """Candidates of each tuned threshold; units as in :class:`nndet_psma.postproc.settings.PostprocSettings`.

    "Off" (``None``) is always tried for the two filters, one vote for the voting, and 0 for the score.

    Attributes:
        zone_mm: tau4 in mm.
        hu_threshold: tau5 in HU.
        hu_quantile: tau6.
        vote_iou: tau1.
        min_votes: tau2.
        score_threshold: ``None``: every score that occurs, or 64 of them at even quantiles if there are more.

    Raises:
        ValueError: no candidate for the voting overlap, or one out of its range (names the field).
    """

    zone_mm: tuple[float, ...]
    hu_threshold: tuple[float, ...]
    hu_quantile: tuple[float, ...]
    vote_iou: tuple[float, ...]
    min_votes: tuple[int, ...]
    score_threshold: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.vote_iou:
            raise ValueError("vote_iou needs at least one candidate")
        for field in fields(self):
            for candidate in getattr(self, field.name) or ():
                replace(PostprocSettings(), **{field.name: candidate})  # refuses what is out of range

    @classmethod
    def paper_grid(cls, pixel_mm: float = 0.648) -> SweepGrid:
        """Table 3 of Xu 2023; tau4 there is 1..10 pixels.

        Args:
            pixel_mm: in-plane pixel size of the paper's images.
        """
        return cls(
            zone_mm=tuple(round(pixels * pixel_mm, 6) for pixels in range(1, 11)),
            hu_threshold=(80.0, 100.0, 120.0, 140.0, 160.0),
            hu_quantile=QUANTILES,
            vote_iou=QUANTILES,
            min_votes=(1, 2, 3, 4, 5),
        )

    def zones(self) -> list[float | None]:
        """Off and every tau4."""
        return [None, *sorted(set(self.zone_mm))]

    def hu_pairs(self, idle_quantile: float) -> list[tuple[float | None, float]]:
        """Off (which has no quantile: ``idle_quantile`` stands in) and every pair of tau5 and tau6."""
        return [
            (None, idle_quantile),
            *product(sorted(set(self.hu_threshold)), sorted(set(self.hu_quantile))),
        ]

    def votes(self, num_voters: int) -> list[int]:
        """One vote and every tau2 that ``num_voters`` can reach."""
        return sorted({1, *(votes for votes in self.min_votes if 1 <= votes <= num_voters)})

    def score_thresholds(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """0 and the score thresholds to try, ascending ``[T]``; those found in ``scores`` are scores that occur."""
        if self.score_threshold is not None:
            return np.unique([0.0, *self.score_threshold])
        distinct = np.unique(scores)
        if len(distinct) > MAX_SCORE_THRESHOLDS:
            distinct = np.quantile(distinct, np.linspace(0, 1, MAX_SCORE_THRESHOLDS), method="nearest")
        return np.unique([0.0, *distinct])


def sweep_grid(plan: Plan) -> SweepGrid:
    """The plan's grid; None (off) is always tried by the sweep itself.

    Raises:
        UserError: a key or value of ``postproc_grid`` is wrong.
    """
    grid = {name: tuple(v for v in values if v is not None) for name, values in plan.postproc_grid.items()}
    try:
        return SweepGrid(**grid)
    except (TypeError, ValueError) as error:
        raise UserError(f"postproc_grid of the plan is wrong: {error}", remedy="Correct the plan") from None
