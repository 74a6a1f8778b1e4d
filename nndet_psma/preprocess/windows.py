"""HU windows and linear scalings to [0, 1], and the 2.5D channels of a slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.plan import Plan, Stage


@dataclass(frozen=True)
class ChannelSource:
    """One channel group: a modality of the store seen through a range.

    Attributes:
        modality: name of the array in the store.
        lower: value that becomes 0 (HU for CT, SUV for PET).
        upper: value that becomes 1.
    """

    modality: str
    lower: float
    upper: float


def channel_sources(plan: Plan, stage: Stage) -> list[ChannelSource]:
    """Channel groups of a stage: its HU windows first, then the other modalities."""
    windows = {window.name: window for window in plan.windows}
    sources = [
        ChannelSource(str(plan.ct_name), windows[name].lower, windows[name].upper) for name in stage.windows
    ]
    return sources + [ChannelSource(s.name, s.lower, s.upper) for s in plan.scalings]


def apply_window(values: NDArray, lower: float, upper: float) -> NDArray[np.float32]:
    """``lower..upper`` to 0..1, clipped (Xu et al. 2023, figure 1)."""
    scaled = (values.astype(np.float32) - np.float32(lower)) / np.float32(upper - lower)
    return np.clip(scaled, 0.0, 1.0)


def slice_channels(
    arrays: dict[str, NDArray],
    sources: Sequence[ChannelSource],
    z: int,
    neighbours: int,
    mask: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Channels of the axial slice ``z`` with ``neighbours`` slices on each side.

    Beyond the first and last slice the outermost slice is repeated. Order: source by source, lower to upper slice.

    Args:
        arrays: by modality name, each (z, y, x).
        sources: channel groups.
        z: index of the centre slice.
        neighbours: k, slices on each side; 1 in the paper.
        mask: (y, x) of the centre slice; pixels outside become 0 in every channel.

    Returns:
        float32 ``[len(sources) * (2k + 1), y, x]`` in [0, 1].
    """
    depth = next(iter(arrays.values())).shape[0]
    picks = np.clip(np.arange(z - neighbours, z + neighbours + 1), 0, depth - 1)
    channels = [apply_window(arrays[s.modality][picks], s.lower, s.upper) for s in sources]
    stacked = np.concatenate(channels)
    if mask is not None:
        stacked *= mask
    return stacked
