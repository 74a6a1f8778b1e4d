"""What the channels of an image are made of: HU windows of a CT, linear scalings of other modalities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from nndet_psma.core.schema import Label, Number, Within

Intensity = Annotated[float, Within(-1e9, 1e9)]
"""In HU, SUV or whatever a modality is given in: single precision must still tell its neighbours apart."""


@dataclass(frozen=True)
class Window:
    """HU window ``lower..upper``; scaled to [0, 1] and clipped."""

    name: Label
    lower: Intensity
    upper: Intensity

    def __post_init__(self) -> None:
        if not self.lower < self.upper:
            raise ValueError(f"window '{self.name}': lower {self.lower} is not below upper {self.upper}")


@dataclass(frozen=True)
class Scaling:
    """Linear scaling of a modality other than CT: ``lower..upper`` to [0, 1], clipped.

    The limits are in the modality's own unit (SUV), or, where ``zscore`` is set, in standard deviations from the mean
    of the case's body: for images in arbitrary units.
    """

    modality: Number
    name: Label
    lower: Intensity
    upper: Intensity
    zscore: bool = False

    def __post_init__(self) -> None:
        if not self.lower < self.upper:
            raise ValueError(f"scaling '{self.name}': lower {self.lower} is not below upper {self.upper}")
