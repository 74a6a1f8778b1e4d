"""What printed results leave open: counts behind percentages, and McNemar's p where only the margins are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nndet_psma.evaluation.statistics.reader_study import mcnemar

Mode = Literal["cut", "round"]

METRICS = ("accuracy", "sensitivity", "specificity", "ppv", "npv", "f1")
"""What :func:`counts_from_percentages` understands."""


MOST_PAIRS = 4_000_000
"""Pairs of true positives and true negatives that are tried: a quarter of a minute."""

_ROUNDING = 1e-6  # of decimal fractions in binary


@dataclass(frozen=True)
class MatchingCounts:
    """Counts that would print as the given percentages.

    Attributes:
        tp: true positives.
        tn: true negatives.
        modes: how the percentages were shortened for these counts.
    """

    tp: int
    tn: int
    modes: tuple[Mode, ...]


def counts_from_percentages(
    positives: int,
    negatives: int,
    printed: Mapping[str, float],
    modes: tuple[Mode, ...] = ("cut", "round"),
    *,
    decimals: int = 0,
) -> list[MatchingCounts]:
    """All pairs of true positives and true negatives that print as the given percentages.

    Args:
        positives: rows that are a yes.
        negatives: rows that are a no.
        printed: percentage of each of :data:`METRICS` that is known.
        modes: how all of them may have been shortened: "cut" drops digits, "round" takes the nearest.
        decimals: printed digits after the point.

    Raises:
        ValueError: a name is none of :data:`METRICS`, nothing is printed, a value is no percentage of so many digits,
            or there are more than :data:`MOST_PAIRS` pairs to try.
    """
    unknown = sorted(set(printed) - set(METRICS))
    if unknown or not printed:
        raise ValueError(f"expected some of {', '.join(METRICS)}, got {', '.join(unknown) or 'nothing'}")
    for name, value in printed.items():
        scaled = value * 10**decimals
        if not 0 <= value <= 100 or abs(scaled - round(scaled)) > _ROUNDING:
            raise ValueError(
                f"expected a percentage with {decimals} digits after the point, got {name}={value:g}"
            )
    if (positives + 1) * (negatives + 1) > MOST_PAIRS:
        raise ValueError(f"{positives} positives and {negatives} negatives are too many pairs to try")
    wanted = {name: round(value * 10**decimals) for name, value in printed.items()}
    found = []
    for tp in range(positives + 1):
        for tn in range(negatives + 1):
            shares = _shares(tp, positives, tn, negatives)
            fitting = tuple(
                mode
                for mode in modes
                if all(_prints(shares[name], value, mode, 10**decimals) for name, value in wanted.items())
            )
            if fitting:
                found.append(MatchingCounts(tp, tn, fitting))
    return found


def _shares(tp: int, positives: int, tn: int, negatives: int) -> dict[str, tuple[int, int]]:
    fp, fn = negatives - tn, positives - tp
    return {
        "accuracy": (tp + tn, positives + negatives),
        "sensitivity": (tp, positives),
        "specificity": (tn, negatives),
        "ppv": (tp, tp + fp),
        "npv": (tn, tn + fn),
        "f1": (2 * tp, 2 * tp + fp + fn),
    }


def _prints(share: tuple[int, int], value: int, mode: Mode, scale: int) -> bool:
    """In whole numbers, so that 0.29 is not cut to 28 %."""
    part, total = share
    if total == 0:
        return False
    if mode == "cut":
        return 100 * scale * part // total == value
    return abs(100 * scale * part - value * total) * 2 <= total


@dataclass(frozen=True)
class McNemarBounds:
    """McNemar's exact p of two raters of whom only the numbers of errors are known.

    Attributes:
        fewest_shared: rows on which both must be wrong.
        most_shared: rows on which both can be wrong.
        p_of_shared: two-sided p for every number of shared errors from the fewest to the most.
    """

    fewest_shared: int
    most_shared: int
    p_of_shared: list[float]

    def shared_below(self, level: float) -> int | None:
        """Fewest shared errors at which p lies below ``level``; None where it never does."""
        below = [shared for shared, p in enumerate(self.p_of_shared, self.fewest_shared) if p < level]
        return below[0] if below else None


def mcnemar_bounds(first_errors: int, second_errors: int, total: int) -> McNemarBounds:
    """Every p-value that fits the margins.

    Raises:
        ValueError: more errors than rows, or a negative number.
    """
    if min(first_errors, second_errors) < 0 or max(first_errors, second_errors) > total:
        raise ValueError(f"{first_errors} and {second_errors} errors in {total} rows")
    fewest, most = max(0, first_errors + second_errors - total), min(first_errors, second_errors)
    p_of_shared = [mcnemar(second_errors - s, first_errors - s) for s in range(fewest, most + 1)]
    return McNemarBounds(fewest, most, p_of_shared)
