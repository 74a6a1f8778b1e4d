"""Masks as other programs store them: drawn with any value, with several values, or interpolated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.labels import CONNECTIVITY, Connectivity, node_components
from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER
from nndet_psma.dataset.faults.kinds import Fault
from nndet_psma.dataset.task.instances import instance_ids

SOFT_THRESHOLD = 0.5
"""From here on a voxel of an interpolated mask counts: 1 is as near as 0."""
MAX_COMPONENTS = 65535
"""More pieces are noise, and no 16-bit label map, which is what tasks hold, could number them."""


def hard_mask(mask: NDArray[Any], file: Path, *, soft: bool | None = None) -> NDArray[Any]:
    """The mask itself where it holds whole numbers; an interpolated one is refused, or thresholded.

    Args:
        mask: (z, y, x).
        file: named by messages.
        soft: threshold an interpolated mask at :data:`SOFT_THRESHOLD`, and say so; None where the command has no
            ``--soft`` to offer.

    Raises:
        UserError: the mask is interpolated, and ``soft`` is not True, or its values do not round to 0 and 1.
    """
    if mask.dtype.kind != "f" or all(np.array_equal(plane, np.rint(plane)) for plane in mask):
        return mask
    low, high = float(mask.min()), float(mask.max())
    found = f"fractions, and values from {low:.4g} to {high:.4g}"
    offer = "" if soft is None else f", or give --soft: voxels from {SOFT_THRESHOLD:g} on count"
    if not soft:
        raise Fault(
            "fractional ids",
            "the mask was interpolated: its values are no labels",
            file=file,
            expected="whole numbers",
            found=found,
            remedy=f"Resample masks with nearest neighbour{offer}",
        )
    if low <= -SOFT_THRESHOLD or high >= 1 + SOFT_THRESHOLD:
        raise Fault(
            "fractional ids",
            "an interpolated mask of more than 0 and 1 has no threshold",
            file=file,
            expected="values from 0 to 1, where interpolation may overshoot by less than a half",
            found=found,
            remedy="Resample the mask with nearest neighbour",
        )
    LOGGER.warning("%s: an interpolated mask; voxels from %g on count (--soft)", file, SOFT_THRESHOLD)
    return (mask >= SOFT_THRESHOLD).astype(np.uint8)


def binary_mask(
    mask: NDArray[Any], file: Path, *, remedy: str, values: Sequence[int] = (), soft: bool = False
) -> NDArray[np.bool_]:
    """Where the one structure of a mask is, with whatever single value it is drawn.

    Args:
        mask: (z, y, x).
        file: named by messages.
        remedy: told when there are several values and none is chosen.
        values: those that count; empty where the mask may hold only one.
        soft: see :func:`hard_mask`.

    Raises:
        UserError: the mask holds several values and none is chosen, negative ones, or fractions.
    """
    hard = hard_mask(mask, file, soft=soft)
    present = instance_ids(hard, file)
    shown = ", ".join(map(str, present[:5])) + (" ..." if len(present) > 5 else "")
    if values:
        if len(present) and not np.isin(present, values).any():
            LOGGER.warning("%s: holds %s and none of the values that count (%s)", file, shown, _text(values))
        return np.isin(hard, values)
    if len(present) > 1:
        raise UserError(
            "the mask holds several values where one structure is expected",
            file=file,
            expected="0 and one other value",
            found=f"0, {shown}",
            remedy=remedy,
        )
    return hard > 0


def mask_components(
    mask: NDArray[Any], file: Path, connectivity: Connectivity = CONNECTIVITY
) -> NDArray[np.int32]:
    """Numbers from 1 of the connected components of everything that is not 0 (z, y, x).

    Raises:
        UserError: there are more than :data:`MAX_COMPONENTS`.
    """
    ids, count = node_components(mask, connectivity)
    if count > MAX_COMPONENTS:
        raise UserError(
            "the mask falls into more pieces than there can be lesions",
            file=file,
            expected=f"at most {MAX_COMPONENTS} connected components",
            found=str(count),
            remedy="Remove its noise; is it a mask, or an image?",
        )
    return ids


def _text(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
