"""What a sweep maximises, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.errors import UserError

_KNOWN = "f1, sensitivity@precision=P, sensitivity@fp=N, precision@sensitivity=S"
_CONSTRAINED = re.compile(r"(sensitivity@precision|sensitivity@fp|precision@sensitivity)=(\d+\.?\d*|\.\d+)")


@dataclass(frozen=True)
class Criterion:
    """A metric to maximise, under a limit on another one if ``limited`` is set.

    The paper also reports "best sensitivity" and "best precision"; taken alone those are won by keeping
    everything or one sure box, so here they come with a limit on their counterpart.

    Attributes:
        metric: ``f1``, ``sensitivity`` or ``precision``.
        limited: ``precision``, ``sensitivity`` (at least ``limit``), ``fp_per_case`` (at most), or ``None``.
        limit: the limit.
    """

    metric: str
    limited: str | None = None
    limit: float = 0.0

    def value(self, metrics: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Value of each setting; negative where the limit is missed, the nearer to 0 the less it is missed.

        Args:
            metrics: metric name -> array, all of one shape.
        """
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
    """Read ``f1``, ``sensitivity@precision=0.3``, ``sensitivity@fp=4`` or ``precision@sensitivity=0.8``.

    ``fp`` counts false positive slice boxes per case.

    Raises:
        UserError: unknown name, or a precision or sensitivity above 1.
    """
    if name == "f1":
        return Criterion("f1")
    parsed = _CONSTRAINED.fullmatch(name)
    if parsed is None:
        raise UserError(f"unknown sweep criterion '{name}'", expected=f"one of {_KNOWN}")
    metric, limited = parsed[1].split("@")
    limit = float(parsed[2])
    if limited != "fp" and limit > 1:
        raise UserError(f"sweep criterion '{name}' can never be met", expected=f"{limited} from 0 to 1")
    return Criterion(metric, "fp_per_case" if limited == "fp" else limited, limit)
