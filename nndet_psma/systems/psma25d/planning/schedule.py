"""Training schedules: the paper's, scaled to the data set and the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nndet_psma.artifacts.plan import Target
from nndet_psma.planners.short_training import StageSchedule

PAPER_BATCH = 64
_PAPER_POSITIVE_SLICES = 1200  # 400 training nodes, about 3 slices each; the paper does not count slices


@dataclass(frozen=True)
class Schedule:
    """Schedules of the whole-slice and the search-region stages."""

    wsi: StageSchedule
    search: StageSchedule
    optimizer: Literal["sgd", "adamw"]
    reason: str


def schedule_for(
    target: Target,
    positive_slices: int,
    batch: int,
    positive_fraction: float,
    factor: float,
    *,
    paper: bool = False,
    warmup: int | None = None,
) -> Schedule:
    """Schedules for a machine and a data set.

    GPU: Xu et al. 2023, "Model training" (batch 64; whole slices 3000 iterations at 0.01, a tenth from 2000; search
    region 6000 at 0.005, a tenth from 4000 and 5000), scaled so that every positive slice is seen as often as there
    and the rate follows the batch linearly; never more iterations than the paper's at equal images.

    CPU: training from scratch within minutes: a fixed small number of iterations with AdamW, which learnt more in 200
    steps than SGD on validation cases of a phantom task (seed 7, not the demonstration's), with the paper's decay.

    ``paper`` sees as many images as the paper, whatever the data and the machine; only the batch may be smaller.
    ``warmup`` iterations at the paper's batch take the place of our tenth of the iterations.
    """
    if target.device == "cpu" and not paper:
        wsi, search = (300, 0.001, (2 / 3,)), (260, 0.001, (2 / 3, 5 / 6))
        reason = "CPU: a fixed budget of iterations from scratch with AdamW, decay at the paper's fractions"
        return Schedule(_stage(*wsi, factor, warmup), _stage(*search, factor, warmup), "adamw", reason)
    share = 1.0
    if not paper:
        share = min(1.0, positive_slices / _PAPER_POSITIVE_SLICES * 0.5 / positive_fraction)
    images = PAPER_BATCH / batch
    wsi = (round(3000 * images * share), 0.01 / images, (2 / 3,))
    search = (round(6000 * images * share), 0.005 / images, (2 / 3, 5 / 6))
    reason = f"Xu et al. 2023 (batch {PAPER_BATCH}) at batch {batch}"
    reason += "" if paper else f" and {positive_slices} positive slices: {share:.0%} of their images"
    warm = None if warmup is None else warmup * images
    return Schedule(_stage(*wsi, factor, warm), _stage(*search, factor, warm), "sgd", reason)


def _stage(
    iterations: int, rate: float, decays: tuple[float, ...], factor: float, warmup: float | None
) -> StageSchedule:
    steps = max(0, round(iterations * factor))
    warm = min(1000, steps // 10) if warmup is None else min(steps, round(warmup * factor))
    return StageSchedule(steps, rate, [round(steps * d) for d in decays], warm)
