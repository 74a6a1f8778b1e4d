"""The training runs of a fold: what each sees, what it starts from, how long it goes."""

from __future__ import annotations

from typing import Literal

from nndet_psma.artifacts.channels import Window
from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.systems.psma25d.planning.schedule import Schedule

WSI = "wsi"
ALL_WINDOWS = "multiwindow"
NO_WINDOW = "all"


def plan_stages(
    windows: list[Window], channels: Literal["voters", "multiwindow"], pretraining: bool, schedule: Schedule
) -> list[Stage]:
    """Whole-slice pretraining, then the search-region stages that start from it.

    Source: Xu et al. 2023, figure 2: pretraining with soft tissue (the last window), then one detector per window,
    which vote. "multiwindow" gives one detector all windows as channels instead, as the input of one network; its
    first convolution is widened from the pretrained one. Without CT there is one voter on the scaled modalities.
    """
    names = [window.name for window in windows]
    stages = []
    if pretraining:
        stages.append(Stage(WSI, "body", names[-1:], None, False, *schedule.wsi))
    start = WSI if pretraining else None
    if not names:
        voters = {NO_WINDOW: names}
    elif channels == "multiwindow":
        voters = {ALL_WINDOWS: names}
    else:
        voters = {name: [name] for name in names}
    stages += [Stage(name, "search", seen, start, True, *schedule.search) for name, seen in voters.items()]
    return stages
