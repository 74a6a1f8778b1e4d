"""What can be told of an object without a network: size, HU, distance to the search region."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from nndet_psma.dataset.images.images import Volume
from nndet_psma.planners.fingerprint.lesion_shape import in_plane_shape

VOLUME, SHORT, LONG = "volume_mm3", "short_axis_mm", "long_axis_mm"
MEDIAN, MEAN, SPREAD, LOW, HIGH = "hu_median", "hu_mean", "hu_sd", "hu_p10", "hu_p90"
CTV = "outside_ctv_mm"
FEATURES = (VOLUME, SHORT, LONG, MEDIAN, MEAN, SPREAD, LOW, HIGH)
"""Names of what is always measured; :data:`CTV` only where there is a search region."""


def object_features(
    ct: Volume, mask: Volume, number: int, box: NDArray[np.float64], ctv: Volume | None
) -> dict[str, float | None]:
    """Measure one object on the image's own voxels.

    Args:
        ct: HU.
        mask: numbers of the objects on the same grid.
        number: of the object.
        box: its tight box ``(z0, y0, x0, z1, y1, x1)``, voxel edges.
        ctv: search region on the same grid.

    Returns:
        mm3, mm, HU; ``outside_ctv_mm`` is the distance of the centre of the box to the nearest voxel centre of the
        region, 0 inside; None where the region is empty.
    """
    part = tuple(slice(int(a), int(b)) for a, b in zip(box[:3], box[3:], strict=True))
    inside = mask.array[part] == number
    values = ct.array[part][inside].astype(np.float64)
    shape = in_plane_shape(inside, ct.geometry.spacing)
    low, median, high = np.quantile(values, [0.1, 0.5, 0.9])
    found: dict[str, float | None] = {
        VOLUME: float(inside.sum() * np.prod(ct.geometry.spacing)),
        SHORT: shape.short_axis_mm,
        LONG: shape.long_axis_mm,
        MEDIAN: float(median),
        MEAN: float(values.mean()),
        SPREAD: float(values.std()),
        LOW: float(low),
        HIGH: float(high),
    }
    if ctv is not None:
        found[CTV] = _outside(ctv.array > 0, (box[:3] + box[3:]) / 2, ct.geometry.spacing)
    return found


def _outside(
    region: NDArray[np.bool_], centre: NDArray[Any], spacing: tuple[float, float, float]
) -> float | None:
    index = tuple(np.clip(np.floor(centre).astype(int), 0, np.array(region.shape) - 1))
    if region[index]:
        return 0.0
    voxels = np.argwhere(region)
    if len(voxels) == 0:
        return None
    step = np.array(spacing)
    distance, _ = cKDTree((voxels + 0.5) * step).query(centre * step)
    return float(distance)
