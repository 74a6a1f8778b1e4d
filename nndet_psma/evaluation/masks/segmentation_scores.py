"""How well a mask agrees with another, voxel by voxel: the scores of dwi2022, and the surface distances beside them.

======================  ==============================================================================================
dice                    2 TP / (2 TP + FP + FN)
ppv, tpr                TP / (TP + FP), TP / (TP + FN)
volumetric_similarity   1 - abs(FN - FP) / (2 TP + FP + FN): of the volumes alone, whatever their place
hausdorff_mm            max(h(A, B), h(B, A)) over *all* voxel centres
average_hausdorff_mm    max(d(A, B), d(B, A)) over all voxel centres, d being the mean distance to the nearest
mahalanobis             sqrt((mx - my)' S^-1 (mx - my)) of the means of the voxel centres; S is the mean of the two
                        covariances, weighted with the numbers of voxels (Taha and Hanbury 2015). It has no unit,
                        although the paper prints mm
surface_hausdorff_mm    as hausdorff_mm, between surface voxels
hd95_mm                 95th percentile in place of the maximum, between surface voxels
surface_distance_mm     mean of the distances of both surfaces together
======================  ==============================================================================================

Empty masks: with both empty everything is undefined (None); with one empty dice and volumetric similarity are 0, the
share of nothing and all distances undefined. A mask that is empty by right must not raise or lower a mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.masks.surface_distance import Spacing, both_distances

OVERLAPS = ("dice", "ppv", "tpr", "volumetric_similarity")
DISTANCES = (
    *("hausdorff_mm", "average_hausdorff_mm", "mahalanobis"),
    *("surface_hausdorff_mm", "hd95_mm", "surface_distance_mm"),
)
_SINGULAR = 1e-12  # of the largest eigenvalue


@dataclass(frozen=True)
class VoxelCounts:
    """Voxels right, wrong and missed."""

    tp: int
    fp: int
    fn: int

    @classmethod
    def of(cls, prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> VoxelCounts:
        """Compare two masks of one shape."""
        tp = int(np.count_nonzero(prediction & truth))
        return cls(tp, int(np.count_nonzero(prediction)) - tp, int(np.count_nonzero(truth)) - tp)

    def __add__(self, other: VoxelCounts) -> VoxelCounts:
        return VoxelCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def dice(self) -> float | None:
        """Dice score."""
        return _share(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def ppv(self) -> float | None:
        """Positive predictive value."""
        return _share(self.tp, self.tp + self.fp)

    @property
    def tpr(self) -> float | None:
        """True positive rate."""
        return _share(self.tp, self.tp + self.fn)

    @property
    def volumetric_similarity(self) -> float | None:
        """1 - abs(FN - FP) / (2 TP + FP + FN)."""
        both = 2 * self.tp + self.fp + self.fn
        return _share(both - abs(self.fn - self.fp), both)


@dataclass(frozen=True)
class SegmentationScores:
    """Scores of one mask; None where undefined. Meanings: the module's table."""

    tp: int
    fp: int
    fn: int
    dice: float | None
    ppv: float | None
    tpr: float | None
    volumetric_similarity: float | None
    hausdorff_mm: float | None
    average_hausdorff_mm: float | None
    mahalanobis: float | None
    surface_hausdorff_mm: float | None
    hd95_mm: float | None
    surface_distance_mm: float | None

    @property
    def counts(self) -> VoxelCounts:
        """Voxels right, wrong and missed."""
        return VoxelCounts(self.tp, self.fp, self.fn)


def segmentation_scores(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Spacing
) -> SegmentationScores:
    """Compare two masks.

    Args:
        prediction: (z, y, x).
        truth: the same shape.
        spacing: mm along (z, y, x).

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"masks of different shapes: {prediction.shape} and {truth.shape}")
    cut = _common(prediction, truth)
    prediction, truth = prediction[cut].astype(bool, copy=False), truth[cut].astype(bool, copy=False)
    counts = VoxelCounts.of(prediction, truth)
    distances = both_distances(prediction, truth, spacing)
    voxels, surfaces = distances or (None, None)
    return SegmentationScores(
        tp=counts.tp,
        fp=counts.fp,
        fn=counts.fn,
        dice=counts.dice,
        ppv=counts.ppv,
        tpr=counts.tpr,
        volumetric_similarity=counts.volumetric_similarity,
        hausdorff_mm=None if voxels is None else voxels.hausdorff,
        average_hausdorff_mm=None if voxels is None else voxels.average_hausdorff,
        mahalanobis=mahalanobis_distance(prediction, truth, spacing),
        surface_hausdorff_mm=None if surfaces is None else surfaces.hausdorff,
        hd95_mm=None if surfaces is None else surfaces.hausdorff_percentile(95),
        surface_distance_mm=None if surfaces is None else surfaces.mean,
    )


def mahalanobis_distance(
    first: NDArray[np.bool_], second: NDArray[np.bool_], spacing: Spacing
) -> float | None:
    """Distance of the means of two masks in units of their common spread; it has no unit.

    None when a mask is empty, or when both are flat in a direction in which the means differ (a division by 0).
    """
    points = [np.argwhere(mask) * np.asarray(spacing) for mask in (first, second)]
    if not all(len(each) for each in points):
        return None
    means = [each.mean(axis=0) for each in points]
    spread = sum((each - mean).T @ (each - mean) for each, mean in zip(points, means, strict=True))
    values, vectors = np.linalg.eigh(np.asarray(spread) / sum(map(len, points)))
    apart = vectors.T @ (means[0] - means[1])
    flat = values <= _SINGULAR * max(float(values[-1]), 1e-300)
    if (np.abs(apart[flat]) > 1e-9).any():
        return None
    return float(np.sqrt((apart[~flat] ** 2 / values[~flat]).sum()))


def _common(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Tight slices round both; nothing outside matters."""
    cut = []
    for axis in range(first.ndim):
        others = tuple(other for other in range(first.ndim) if other != axis)
        places = np.flatnonzero(first.any(axis=others) | second.any(axis=others))
        cut.append(slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0))
    return tuple(cut)


def _share(part: int, total: int) -> float | None:
    return part / total if total else None
