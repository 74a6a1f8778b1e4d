"""HU windows and linear scalings to [0, 1], and the 2.5D channels of a slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.detector_plan import DetectorPlan, Stage
from nndet_psma.core.errors import UserError
from nndet_psma.preprocess.distance import UNIT_MM

if TYPE_CHECKING:
    from torch import Tensor

    from nndet_psma.preprocess.prepare import PreparedCase

CTV_DISTANCE = "distance to the CTV"
"""The stored distance among the arrays that channels are made of; no modality is called so."""


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


def channel_sources(plan: DetectorPlan, stage: Stage) -> list[ChannelSource]:
    """Channel groups of a stage: its HU windows first, then the other modalities."""
    windows = {window.name: window for window in plan.windows}
    sources = [
        ChannelSource(str(plan.ct_name), windows[name].lower, windows[name].upper) for name in stage.windows
    ]
    for scaling in plan.scalings:
        if scaling.modality == plan.ctv_modality:  # shown as the distance to it, which has a unit of its own
            ends = scaling.lower / UNIT_MM, scaling.upper / UNIT_MM
            sources.append(ChannelSource(CTV_DISTANCE, *ends))
        else:
            sources.append(ChannelSource(scaling.name, scaling.lower, scaling.upper))
    return sources


def seen_arrays(case: PreparedCase, sources: Sequence[ChannelSource]) -> dict[str, NDArray[Any]]:
    """What the channels of a case are made of, by the name that the sources give it; each (z, y, x).

    Raises:
        UserError: the distance to the search region is a channel, and the case has no search region.
    """
    if all(source.modality != CTV_DISTANCE for source in sources):
        return case.arrays
    if case.ctv_distance is None:
        raise UserError(
            f"case {case.case_id} has no search region, and the model sees the distance to it",
            remedy="Give the CTV, or use a model without plan_cfg.ctv_distance_mm",
        )
    return {**case.arrays, CTV_DISTANCE: case.ctv_distance}


def apply_window(values: NDArray[Any], lower: float, upper: float) -> NDArray[np.float32]:
    """``lower..upper`` to 0..1, clipped (Xu et al. 2023, figure 1)."""
    scaled = values.astype(np.float32)
    _window(scaled, lower, upper, scaled)
    return scaled


def normalised(channels: Tensor, mean: float, std: float) -> Tensor:
    """Channels in [0, 1] as a network wants them: ``(channels - mean) / std``, in place."""
    return channels if (mean, std) == (0.0, 1.0) else channels.sub_(mean).div_(std)


def slice_channels(
    arrays: dict[str, NDArray[Any]],
    sources: Sequence[ChannelSource],
    z: int,
    neighbours: int,
    mask: NDArray[np.bool_] | None = None,
    box: tuple[int, int, int, int] | None = None,
) -> NDArray[np.float32]:
    """Channels of the axial slice ``z`` with ``neighbours`` slices on each side.

    Beyond the first and last slice the outermost slice is repeated. Order: source by source, lower to upper slice.
    Only rows of the box, or of the mask, are read from disk, and only they are windowed.

    Args:
        arrays: by modality name, each (z, y, x).
        sources: channel groups.
        z: index of the centre slice.
        neighbours: k, slices on each side; 1 in the paper.
        mask: (y, x) of the centre slice; pixels outside become 0 in every channel.
        box: ``(y0, x0, y1, x1)`` in whole voxels within the slice: give this part only.

    Returns:
        float32 ``[len(sources) * (2k + 1), y, x]`` in [0, 1], of the slice or of its box.
    """
    depth, height, width = next(iter(arrays.values())).shape
    y0, x0, y1, x1 = (0, 0, height, width) if box is None else box
    kept = None if mask is None else mask[y0:y1, x0:x1]
    channels = np.empty((len(sources) * (2 * neighbours + 1), y1 - y0, x1 - x0), dtype=np.float32)
    seen = channels
    if kept is not None:
        # what is masked away need not be windowed: most of a slice, where the mask is a grown CTV
        rows, columns = (_span(np.asarray(kept.any(axis=axis))) for axis in (1, 0))
        channels[...] = 0.0
        seen, kept = channels[:, rows, columns], kept[rows, columns]
        y0, y1, x0, x1 = y0 + rows.start, y0 + rows.stop, x0 + columns.start, x0 + columns.stop
    picks = np.clip(np.arange(z - neighbours, z + neighbours + 1), 0, depth - 1).tolist()
    planes: dict[str, NDArray[np.float32]] = {}
    for number, source in enumerate(sources):
        group = seen[number * len(picks) : (number + 1) * len(picks)]
        if source.modality not in planes:  # several windows of one CT: read and converted once
            array = arrays[source.modality]
            planes[source.modality] = np.stack(
                [array[pick, y0:y1, x0:x1] for pick in picks], dtype=np.float32
            )
        _window(planes[source.modality], source.lower, source.upper, group)
    if kept is not None:
        seen *= kept
    return channels


def _window(values: NDArray[np.float32], lower: float, upper: float, out: NDArray[np.float32]) -> None:
    """Window float32 values into ``out``."""
    np.subtract(values, np.float32(lower), out=out)
    out /= np.float32(upper - lower)
    np.clip(out, 0.0, 1.0, out=out)


def _span(hits: NDArray[np.bool_]) -> slice:
    """From the first to the last hit; empty when there is none."""
    places = np.flatnonzero(hits)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)
