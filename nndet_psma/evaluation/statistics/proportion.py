"""A share of a count with its exact interval."""

from __future__ import annotations

from dataclasses import dataclass

from nndet_psma.evaluation.statistics.exact_interval import clopper_pearson


@dataclass(frozen=True)
class Proportion:
    """``hits`` of ``total`` with the interval of Clopper and Pearson; None where ``total`` is 0.

    Attributes:
        hits: how many.
        total: of how many.
        value: hits / total.
        ci_low: lower end.
        ci_high: upper end.
    """

    hits: int
    total: int
    value: float | None
    ci_low: float | None
    ci_high: float | None

    @classmethod
    def of(cls, hits: int, total: int, *, level: float = 0.95) -> Proportion:
        """From counts.

        Raises:
            ValueError: not 0 <= hits <= total, or ``level`` outside (0, 1).
        """
        if not 0 <= hits <= total:
            raise ValueError(f"{hits} of {total} is no share")
        if not 0 < level < 1:
            raise ValueError(f"level must lie in (0, 1), got {level}")
        interval = clopper_pearson(hits, total, level=level)
        if interval is None:
            return cls(hits, total, None, None, None)
        return cls(hits, total, hits / total, *interval)
