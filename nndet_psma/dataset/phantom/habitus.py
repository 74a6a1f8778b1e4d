"""Build of one patient: how the template pelvis is stretched and how much fat lies around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Habitus:
    """Build of one patient.

    Attributes:
        scale: stretch of the template along (z, y, x).
        fat: thickness of the fat in front of, behind and beside the muscles, mm.
        prostatectomy: the prostate has been taken out.
        jitter: standard deviation of the displacement of single structures, mm.
    """

    scale: tuple[float, float, float]
    fat: tuple[float, float, float]
    prostatectomy: bool
    jitter: float = 1.2

    def points(self, template: Array, side: int, rng: np.random.Generator) -> Array:
        """Template points ``[N, 3]`` (z, y, x lateral) on one side (+1 left, -1 right), displaced together."""
        placed = template * np.array(self.scale) + rng.normal(0, self.jitter, 3) * (0.5, 1, 1)
        sided: Array = placed * np.array([1, 1, side])
        return sided

    def rows(self, template: Array, side: int, rng: np.random.Generator) -> Array:
        """Template rows of :meth:`Canvas.column` on one side, displaced and thickened a little."""
        sz, sy, sx = self.scale
        placed = template * np.array([sz, sy, sx, sy, sx])
        placed[:, 1:3] += rng.normal(0, self.jitter, 2)
        placed[:, 3:5] *= rng.normal(1, 0.04)
        sided: Array = placed * np.array([1, 1, side, 1, 1])
        return sided

    def plate_rows(self, template: Array, side: int) -> Array:
        """Template rows of :meth:`Canvas.plate` on one side."""
        sz, sy, sx = self.scale
        placed: Array = template * np.array([sz, sy, sx * side, sy, sx * side, 1.0, 1.0])
        return placed


def sample_habitus(rng: np.random.Generator) -> Habitus:
    """Draw the build of a patient; three quarters have had a prostatectomy."""
    scale = tuple(rng.uniform([0.97, 0.94, 0.94], [1.03, 1.04, 1.03]))
    obesity = rng.uniform(0, 1)
    fat = tuple(low + obesity * span for low, span in ((9.0, 18.0), (7.0, 16.0), (7.0, 15.0)))
    return Habitus(scale, fat, bool(rng.random() < 0.75))  # type: ignore[arg-type]
