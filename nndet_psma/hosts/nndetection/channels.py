"""What a preprocessed case holds: channels for the network, and behind them what only the filters look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.detector_plan import DetectorPlan, Stage
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import to_plain
from nndet_psma.systems.psma25d.plan import PSMA25DPlan

EVIDENCE = 2
"""The last channels of every case: CT in HU as it is, neither windowed nor clipped (NaN without CT), and mm outside the
CTV (0 inside and without CTV)."""

_KEY = "psma"


@dataclass(frozen=True)
class Recipe:
    """How a case becomes channels: our plan and the voter whose windows are shown."""

    plan: DetectorPlan
    stage: Stage

    @property
    def channels(self) -> int:
        """Channels that the network sees."""
        return self.plan.channels(self.stage)

    def content(self) -> dict[str, Any]:
        """What decides the content of preprocessed cases, plain: two recipes with the same make the same files."""
        plan = self.plan
        windows = [window for window in plan.windows if window.name in self.stage.windows]
        inputs = (plan.modalities, plan.ct_modality, plan.ctv_modality, windows, plan.scalings)
        grid = (plan.spacing, plan.margin_mm, plan.body_margin_mm, plan.neighbours)
        return {"inputs": to_plain(inputs), "grid": to_plain(grid)}

    def into(self, plan: dict[str, Any]) -> None:
        """Write it into nnDetection's plan, as plain content that is read without this package."""
        plan[_KEY] = {"version": self.plan.version, "plan": to_plain(self.plan), "stage": self.stage.name}

    @classmethod
    def of(cls, plan: dict[str, Any]) -> Recipe:
        """From nnDetection's plan.

        Raises:
            KeyError: the plan was not made by one of our planners.
            UserError: it was made by another version of this package.
        """
        content, source = plan[_KEY], f"plan {plan.get('data_identifier', '')} of nnDetection"
        if content["version"] != PSMA25DPlan.version:
            raise UserError(
                "made by another version of nndet_psma",
                file=source,
                expected=f"{PSMA25DPlan.schema} {PSMA25DPlan.version}",
                found=str(content["version"]),
                remedy="Run nndet_prep of this version, or predict with the version that trained",
            )
        ours = PSMA25DPlan.parse(content["plan"], source)
        return cls(ours, ours.stage(content["stage"]))


def shown_channels(data: NDArray[np.float32]) -> NDArray[np.float32]:
    """The part ``[C, ...]`` of a case's channels that the network sees, without copying."""
    return data[:-EVIDENCE]


def hu_and_zone(data: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """HU and mm outside the CTV, each (z, y, x), of a case ``[C + 2, z, y, x]``."""
    return data[-EVIDENCE], data[-EVIDENCE + 1]
