"""Which thresholds a sweep tries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.box_plan import BoxPlan
from nndet_psma.core.errors import UserError
from nndet_psma.postproc.steps.hu_filter import QUANTILES
from nndet_psma.postproc.steps.settings import PostprocSettings

MAX_SCORE_THRESHOLDS = 64


@dataclass(frozen=True)
class SweepGrid:
    """Candidates of each tuned threshold; units as in :class:`nndet_psma.postproc.steps.settings.PostprocSettings`.

    "Off" (``None``) is always tried for the two filters, one vote for the voting, and 0 for the score.

    Attributes:
        zone_mm: tau4 in mm.
        hu_threshold: tau5 in HU.
        hu_quantile: tau6.
        vote_iou: tau1.
        min_votes: tau2.
        score_threshold: ``None``: every score that occurs, or 64 of them at even quantiles if there are more.
        hit_iou: tau3; every one is scored beside that of the settings.
        others: candidates of any other setting, or of an option ``Step.name`` of a step from elsewhere.

    Raises:
        ValueError: no candidate for the voting overlap, an unknown setting, or a value out of its range (names it).
    """

    zone_mm: tuple[float, ...]
    hu_threshold: tuple[float, ...]
    hu_quantile: tuple[float, ...]
    vote_iou: tuple[float, ...]
    min_votes: tuple[int, ...]
    score_threshold: tuple[float, ...] | None = None
    hit_iou: tuple[float, ...] = ()
    others: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, candidates in self.candidates().items():
            for candidate in candidates:
                PostprocSettings().but({name: candidate})  # refuses what is unknown or out of range
        if not self.vote_iou:
            raise ValueError("vote_iou needs at least one candidate")

    def candidates(self) -> dict[str, tuple[Any, ...]]:
        """Candidates by setting; a score threshold that is ``None`` has none."""
        own = {each.name: getattr(self, each.name) or () for each in fields(self) if each.name != "others"}
        return {**own, **self.others}

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
            hit_iou=QUANTILES,
        )

    def tuned(self) -> set[str]:
        """Settings that have candidates."""
        return {name for name, candidates in self.candidates().items() if candidates}

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


def sweep_grid(plan: BoxPlan) -> SweepGrid:
    """The plan's grid; None (off) is always tried by the sweep itself.

    Raises:
        UserError: a key or value of ``postproc_grid`` is wrong.
    """
    base = PostprocSettings(**plan.postproc_defaults)
    own = [each.name for each in fields(SweepGrid) if each.name not in ("others", "score_threshold")]
    grid = {name: tuple(v for v in values if v is not None) for name, values in plan.postproc_grid.items()}
    others = {name: values for name, values in grid.items() if name not in own}
    try:
        scores = others.pop("score_threshold", None)
        given = {name: grid.get(name, ()) for name in own}
        given["vote_iou"] = given["vote_iou"] or (base.vote_iou,)  # a single voter has nothing to agree on
        return SweepGrid(**given, score_threshold=scores, others=others)
    except (TypeError, ValueError) as error:
        raise UserError(f"postproc_grid of the plan is wrong: {error}", remedy="Correct the plan") from None
