"""Slices without a contour inside a structure: drawn on every second slice, forgotten, or two structures.

Contours on every second (third ...) slice are common on thin slices; the planning system interpolates between them. A
single gap may be a forgotten slice, or the space between two lesions that one structure holds: that the user must say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.dicom.structures import Roi

GapChoice = Literal["ask", "interpolate", "separate"]

_DOUBTFUL_MM = 10.0
"""Contours on single slices that lie over each other and no farther apart can be one lesion."""

_WIDEST_MM = 15.0
"""Nobody draws contours farther apart than this and has them interpolated."""

_REGULAR_GAPS = 2
"""Equal gaps one after the other that show a habit; one alone shows nothing."""

_TOUCHING = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class _Part:
    """One connected area of a slice."""

    slice: int
    label: int


@dataclass(frozen=True)
class _Gap:
    """Two areas that lie over each other with slices without contour between them."""

    below: _Part
    above: _Part

    @property
    def step(self) -> int:
        return self.above.slice - self.below.slice


def close_gaps(mask: NDArray[np.bool_], spacing: Sequence[float], roi: Roi, choice: GapChoice) -> int:
    """Interpolate, in place, between contours on every second (third ...) slice; the number of areas that were added.

    The shape between two areas is where the mean of their signed distances, weighted by the distance of the slices, is
    positive (shape-based interpolation, Raya and Udupa 1990).

    Args:
        mask: ``[z, y, x]`` of one structure.
        spacing: of the voxels (z, y, x), mm.
        roi: for messages.
        choice: "ask" closes regular gaps and refuses doubtful ones; "interpolate" closes both, "separate" neither.

    Raises:
        UserError: a gap may be a forgotten contour or the space between two structures.
    """
    used = ndimage.find_objects(mask.astype(np.uint8))
    if choice == "separate" or not used:
        return 0
    crop = mask[used[0]]
    labels = np.stack([ndimage.label(one, _TOUCHING)[0] for one in crop])
    gaps = list(_find_gaps(labels))
    regular = [gap for gap in _regular(gaps, labels) if gap.step * spacing[0] <= _WIDEST_MM]
    doubtful = [gap for gap in gaps if gap not in regular and _is_doubtful(gap, labels, spacing[0])]
    if doubtful and choice == "ask":
        raise _refusal(max(doubtful, key=lambda gap: gap.step), used[0][0].start, mask.shape[0], roi)
    for gap in [*regular, *doubtful]:
        _fill(crop, gap, labels, spacing)
    return sum(gap.step - 1 for gap in [*regular, *doubtful])


def _find_gaps(labels: NDArray[np.int32]) -> Iterator[_Gap]:
    for k in range(len(labels) - 2):
        for label in range(1, int(labels[k].max()) + 1):
            part = _Part(k, label)
            if not _goes_on(part, labels, 1):
                yield from _gaps_above(part, labels)


def _gaps_above(part: _Part, labels: NDArray[np.int32]) -> Iterator[_Gap]:
    """Gaps to the nearest areas over a part, unless these already rest on something."""
    area = labels[part.slice] == part.label
    for k in range(part.slice + 2, len(labels)):
        over = [_Part(k, int(label)) for label in np.unique(labels[k][area]) if label]
        if over:
            yield from (_Gap(part, one) for one in over if not _goes_on(one, labels, -1))
            return


def _goes_on(part: _Part, labels: NDArray[np.int32], step: int) -> bool:
    """Whether the next slice up (1) or down (-1) has something that touches a part."""
    near = part.slice + step
    if not 0 <= near < len(labels):
        return False
    area = ndimage.binary_dilation(labels[part.slice] == part.label, _TOUCHING)
    return bool((labels[near][area] > 0).any())


def _is_single(part: _Part, labels: NDArray[np.int32]) -> bool:
    return not (_goes_on(part, labels, 1) or _goes_on(part, labels, -1))


def _regular(gaps: Sequence[_Gap], labels: NDArray[np.int32]) -> list[_Gap]:
    """Gaps of chains of single slices that all have the same distance."""
    chain_of: dict[_Part, list[_Gap]] = {}
    for gap in gaps:  # chains grow together where gaps share a part
        joined = [gap]
        for chain in (chain_of.get(gap.below), chain_of.get(gap.above)):
            joined += [one for one in chain or () if one not in joined]
        for one in joined:
            chain_of[one.below] = chain_of[one.above] = joined
    return [gap for gap in gaps if _is_habit(chain_of[gap.below], labels)]


def _is_habit(chain: Sequence[_Gap], labels: NDArray[np.int32]) -> bool:
    parts = {part for gap in chain for part in (gap.below, gap.above)}
    slices = {part.slice for part in parts}
    return (
        len({gap.step for gap in chain}) == 1
        and len(slices) > _REGULAR_GAPS
        and all(_is_single(part, labels) for part in parts)
    )


def _is_doubtful(gap: _Gap, labels: NDArray[np.int32], thickness: float) -> bool:
    """Whether a gap can be a forgotten contour: one slice, or a short way between single slices."""
    single = _is_single(gap.below, labels) or _is_single(gap.above, labels)
    return gap.step == 2 or (single and gap.step * thickness <= _DOUBTFUL_MM)


def _fill(crop: NDArray[np.bool_], gap: _Gap, labels: NDArray[np.int32], spacing: Sequence[float]) -> None:
    below, above = (
        _signed_distance(labels[part.slice] == part.label, spacing[1:]) for part in (gap.below, gap.above)
    )
    for k in range(1, gap.step):
        weight = k / gap.step
        crop[gap.below.slice + k] |= (1 - weight) * below + weight * above > 0


def _signed_distance(area: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Distance to the border in mm, positive inside."""
    padded = np.pad(area, 1)
    inside = ndimage.distance_transform_edt(padded, sampling=spacing)
    outside = ndimage.distance_transform_edt(~padded, sampling=spacing)
    return np.asarray(inside - outside, dtype=np.float64)[1:-1, 1:-1]


def _refusal(gap: _Gap, offset: int, depth: int, roi: Roi) -> UserError:
    first, last = gap.below.slice + offset + 2, gap.above.slice + offset
    missing = f"slice {first}" if first == last else f"slices {first} to {last}"
    return UserError(
        f"structure '{roi.name}' has no contour on {missing} of {depth}, but below and above",
        file=roi.file,
        expected="contours on every slice, or on every second, third ... one",
        found=f"contours on slices {first - 1} and {last + 1} that lie over each other",
        remedy="Draw it, or say what the gap is: --contour-gaps interpolate, or separate for two lesions",
    )
