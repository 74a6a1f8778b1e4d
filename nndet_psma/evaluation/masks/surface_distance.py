"""Distances between two masks in mm, from nearest-neighbour trees instead of distance transforms.

A point set is what the definition says: all voxel centres of a mask (Taha and Hanbury, BMC Med. Imaging 15:29, 2015,
to which dwi2022 refers), or those of its surface, which is what most tools compare. A surface voxel has a voxel outside
the mask among its six neighbours; beyond the image is outside. Nodes are small and far apart, so trees of their few
surface voxels are searched many times faster than the volume between them is transformed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Distances:
    """From every point of one mask to the nearest of the other, mm.

    Attributes:
        forward: ``[N]`` from the points of the first mask to the second.
        backward: ``[M]`` the other way.
    """

    forward: NDArray[np.float64]
    backward: NDArray[np.float64]

    @property
    def hausdorff(self) -> float:
        """Longest of all: max(h(A, B), h(B, A))."""
        return float(max(self.forward.max(), self.backward.max()))

    def hausdorff_percentile(self, percent: float) -> float:
        """The same with a percentile (linear) in place of each longest distance."""
        return float(max(np.percentile(self.forward, percent), np.percentile(self.backward, percent)))

    @property
    def average_hausdorff(self) -> float:
        """The larger of the two mean distances: max(d(A, B), d(B, A))."""
        return float(max(self.forward.mean(), self.backward.mean()))

    @property
    def mean(self) -> float:
        """Mean of all distances of both directions together (average symmetric distance)."""
        return float((self.forward.sum() + self.backward.sum()) / (len(self.forward) + len(self.backward)))


def voxel_distances(
    first: NDArray[np.bool_], second: NDArray[np.bool_], spacing: Spacing
) -> Distances | None:
    """Distances between *all* voxels of two masks (z, y, x); None when one is empty.

    A voxel inside the other mask is at distance 0; the nearest voxel to one outside always lies on the surface.
    """
    return _distances(first, second, spacing, whole=True)


def surface_distances(
    first: NDArray[np.bool_], second: NDArray[np.bool_], spacing: Spacing
) -> Distances | None:
    """Distances between the surface voxels of two masks (z, y, x); None when one is empty."""
    return _distances(first, second, spacing, whole=False)


def both_distances(
    first: NDArray[np.bool_], second: NDArray[np.bool_], spacing: Spacing
) -> tuple[Distances, Distances] | None:
    """:func:`voxel_distances` and :func:`surface_distances` for little more than one of them."""
    if not (first.any() and second.any()):
        return None
    sides = _Side.of(first, spacing), _Side.of(second, spacing)
    return _voxels(*sides), _surfaces(*sides)


def surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of a mask (z, y, x) with at least one of six neighbours outside; beyond the array is outside."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        plane = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        plane[0][1:] &= plane[1][:-1]
        plane[0][:-1] &= plane[1][1:]
        plane[0][[0, -1]] = False
    return mask & ~inner


@dataclass(frozen=True)
class _Side:
    """One mask: itself, the indices of its surface voxels ``[N, 3]``, and the spacing."""

    mask: NDArray[np.bool_]
    edge: NDArray[np.int64]
    spacing: Spacing

    @classmethod
    def of(cls, mask: NDArray[np.bool_], spacing: Spacing) -> _Side:
        cut = _tight(mask)
        edge = np.argwhere(surface(mask[cut])) + [axis.start for axis in cut]
        return cls(mask, edge, spacing)

    def nearest(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Distance of voxels ``[K, 3]`` to the surface, mm."""
        from scipy.spatial import cKDTree

        tree = cKDTree(self.edge * self.spacing, balanced_tree=False, compact_nodes=False)
        found: NDArray[np.float64] = tree.query(indices * self.spacing)[0]
        return found

    def outside(self, other: _Side) -> tuple[NDArray[np.int64], int]:
        """Indices ``[K, 3]`` of the voxels that are not in the other mask, and how many there are in all."""
        cut = _tight(self.mask)
        part = self.mask[cut]
        indices = np.argwhere(part & ~other.mask[cut]) + [axis.start for axis in cut]
        return indices, int(part.sum())


def _distances(
    first: NDArray[np.bool_], second: NDArray[np.bool_], spacing: Spacing, *, whole: bool
) -> Distances | None:
    if not (first.any() and second.any()):
        return None
    sides = _Side.of(first, spacing), _Side.of(second, spacing)
    return _voxels(*sides) if whole else _surfaces(*sides)


def _surfaces(first: _Side, second: _Side) -> Distances:
    return Distances(second.nearest(first.edge), first.nearest(second.edge))


def _voxels(first: _Side, second: _Side) -> Distances:
    return Distances(_to_set(first, second), _to_set(second, first))


def _to_set(source: _Side, target: _Side) -> NDArray[np.float64]:
    indices, total = source.outside(target)
    found = np.zeros(total)
    found[: len(indices)] = target.nearest(indices)
    return found


def _tight(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    cut = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        places = np.flatnonzero(mask.any(axis=others))
        cut.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(cut)
