"""The settings of all filters that a sweep tries, and which boxes each of them keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.detections import Detections
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.steps.step import FilterStep, Spacing, Variant
from nndet_psma.postproc.sweep.candidates import SweepGrid


class FilterVariants:
    """Every combination of the variants of some filters, the mildest first (the last filter varies fastest).

    Args:
        steps: filters that judge every box by itself.
        candidates: values to try by setting.
        base: all other settings.
    """

    def __init__(
        self, steps: Sequence[FilterStep], candidates: Mapping[str, Sequence[Any]], base: PostprocSettings
    ) -> None:
        self.steps = list(steps)
        self.base = base
        self.of_step = [step.variants(candidates, base) for step in steps]
        self.choices = list(product(*(range(len(variants)) for variants in self.of_step)))

    def __len__(self) -> int:
        return len(self.choices)

    def __getitem__(self, index: int) -> Variant:
        """Settings of one combination."""
        chosen = zip(self.of_step, self.choices[index], strict=True)
        return {name: value for variants, place in chosen for name, value in variants[place].items()}

    def settings(self, index: int) -> PostprocSettings:
        """The base settings with one combination put in."""
        return self.base.but(self[index])

    def masks(self, boxes: Detections, spacing: Spacing) -> NDArray[np.bool_]:
        """Which boxes each combination keeps, ``[F, N]``."""
        kept = np.ones((1, len(boxes)), dtype=bool)
        for step, variants in zip(self.steps, self.of_step, strict=True):
            own = np.stack([step.keep(boxes, self.base.but(variant), spacing) for variant in variants])
            kept = (kept[:, None] & own[None]).reshape(len(kept) * len(own), len(boxes))
        return kept


def unused_candidates(grid: SweepGrid, steps: Sequence[FilterStep]) -> list[str]:
    """Settings beside those of the paper with several candidates that none of the filters reads."""
    read = {name for step in steps for name in step.fields}
    return sorted(name for name, values in grid.others.items() if len(set(values)) > 1 and name not in read)
