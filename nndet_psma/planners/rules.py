"""Planning rules for sizes and shares: pure functions from measurements to one value each, with their source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

_FINEST_STRIDE = 4
_MAX_LEVELS = 4
_SIZES_PER_LEVEL = 2
_DOMINATED = 0.5


def target_spacing(spacings: NDArray[np.float64]) -> tuple[float, float, float]:
    """Median spacing of the cases per axis, ``[N, 3]`` (z, y, x) mm; y and x get one common value.

    Source: nnU-Net and nnDetection take the median; a common in-plane value keeps boxes undistorted.
    """
    z, y, x = np.median(spacings, axis=0)
    plane = float(np.sqrt(y * x)) if not math.isclose(y, x, rel_tol=1e-6) else float(y)
    return round(float(z), 4), round(plane, 4), round(plane, 4)


def ctv_margin(outside_mm: Sequence[float], coverage: float, minimum_mm: float) -> tuple[float, float]:
    """Growth of the CTV (mm) that contains the share ``coverage`` of lesions, never below ``minimum_mm``.

    Source: Xu et al. 2023 grow by 10 pixels = 6.48 mm because nodes stuck out by 1-2 pixels.

    Returns:
        margin in mm, and the share of lesions it contains (1 without lesions).
    """
    if not outside_mm:
        return minimum_mm, 1.0
    ordered = np.sort(np.asarray(outside_mm))
    needed = float(ordered[math.ceil(coverage * len(ordered)) - 1])
    margin = max(minimum_mm, math.ceil(needed * 100) / 100)
    return margin, float(np.mean(ordered <= margin))


def neighbour_slices(median_height_mm: float, spacing_z_mm: float, deepest_case: int) -> int:
    """Slices on each side that show a whole lesion from its middle slice; 1 (the paper's value) to 3.

    None where no case has more than one slice (2D data).
    """
    if deepest_case == 1:
        return 0
    return int(np.clip(math.ceil((median_height_mm / spacing_z_mm - 1) / 2 - 1e-9), 1, 3))


def detector_scale(
    median_side_voxels: float, wanted_pixels: float, plane_voxels: tuple[float, float], max_pixels: int
) -> float:
    """Detector pixels per voxel: the median lesion gets ``wanted_pixels``, the slice at most ``max_pixels``.

    Source: Xu et al. 2023 enlarge crops to 640-800 pixels; FPN's finest stride is 4, so lesions of a few voxels need
    enlarging. Lesions that are large anyway are not shrunk (scale 1) unless the budget asks for it. At most 6, in
    steps of 0.05.
    """
    wanted = max(1.0, wanted_pixels / median_side_voxels)
    affordable = math.sqrt(max_pixels / (plane_voxels[0] * plane_voxels[1]))
    return max(0.1, math.floor(min(wanted, affordable, 6.0) * 20) / 20)


def input_size(plane_voxels: tuple[float, float], scale: float, divisor: int) -> tuple[int, int]:
    """(height, width) in detector pixels that holds ``plane_voxels``, rounded up to ``divisor``."""
    height, width = (math.ceil(side * scale / divisor) * divisor for side in plane_voxels)
    return height, width


def pyramid_levels(largest_side_pixels: float) -> list[int]:
    """ResNet layers that feed the FPN: from stride 4 up to the stride that is 2/3 of the largest lesions' side.

    Coarser levels would carry anchors spaced wider than the lesions; two levels at least, for context.
    """
    count = 1 + math.floor(math.log2(max(1.0, largest_side_pixels / 1.5 / _FINEST_STRIDE)))
    return list(range(1, 1 + int(np.clip(count, 2, _MAX_LEVELS))))


def anchor_sizes(sides_pixels: NDArray[np.float64], levels: int) -> list[list[float]]:
    """Two sizes per level, spaced geometrically from the 5 % to the 95 % quantile of the lesions' sides.

    ``sides_pixels`` are square roots of slice-box areas in detector pixels. The ratio of neighbours is at least 1.25.
    """
    count = levels * _SIZES_PER_LEVEL
    low, high = np.quantile(sides_pixels, [0.05, 0.95])
    low = max(low, 4.0)
    high = max(high, low * 1.25 ** (count - 1))
    sizes = np.round(np.geomspace(low, high, count), 1)
    return [[float(s) for s in pair] for pair in sizes.reshape(levels, _SIZES_PER_LEVEL)]


def aspect_ratios(heights: NDArray[np.float64], widths: NDArray[np.float64]) -> list[float]:
    """Height / width of anchors: quantiles 10, 50 and 90 % of the slice boxes, equal ones once."""
    quantiles = np.quantile(heights / widths, [0.1, 0.5, 0.9])
    return sorted({round(float(q), 2) for q in quantiles})


def fitting_scale(plane_voxels: tuple[float, float], longest_side_pixels: float) -> float:
    """Detector pixels per voxel at which the longer side of the plane has ``longest_side_pixels``."""
    return round(longest_side_pixels / max(plane_voxels), 3)


def positive_fraction(positive_slices: int, slices: int) -> float:
    """Share of slices with lesions in a batch: twice their natural share, between 1/2 and 3/4.

    nnDetection oversamples to 1/2; slices without lesions still train the background.
    """
    return float(np.clip(2 * positive_slices / max(1, slices), 0.5, 0.75))


def effective_count(counts: Sequence[int]) -> float:
    """How many equal shares would be as uneven as ``counts``: (sum)^2 / sum of squares (Kish 1965); 0 without any."""
    squares = sum(count * count for count in counts)
    return sum(counts) ** 2 / squares if squares else 0.0


def positive_draw(by_case: Sequence[int], by_lesion: Sequence[int]) -> Literal["slices", "lesions", "cases"]:
    """What is drawn alike so that a few do not dominate: cases, else lesions, else every slice with a lesion.

    Args:
        by_case: slices with a lesion of every case; cases without one do not count.
        by_lesion: slices of every lesion.

    Dominated is what counts, by its slices, as fewer than half of its number; the half is our choice.
    """
    for name, counts in (("cases", by_case), ("lesions", by_lesion)):
        if effective_count(counts) < _DOMINATED * sum(count > 0 for count in counts):
            return name  # type: ignore[return-value]
    return "slices"
