"""How far lesions reach out of the CTV and into it, exact on the voxel grid without a distance map of the volume.

The nearest voxel of a region is always one of its surface (a step towards the point would come nearer otherwise), so
distances to a few surface voxels in a k-d tree are those of a Euclidean distance transform of the whole volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

_FEW = 512  # points that are asked directly
_CELLS = np.array([16.0, 8.0, 4.0, 2.0])  # voxels of the finest axis


class CtvDistance:
    """Distances to the surface of a CTV."""

    def __init__(self, ctv: NDArray[np.bool_], corner: NDArray[np.int64], spacing: tuple[float, ...]) -> None:
        """Distances in mm between voxel centres.

        Args:
            ctv: the part (z, y, x) of the mask within its tight box, not empty.
            corner: voxel of the image at the lower corner of that box.
            spacing: mm (z, y, x).
        """
        self._ctv = np.pad(ctv, 1)  # the CTV ends where the image ends
        self._corner = corner - 1
        self._spacing = np.array(spacing)

    def reach(self, voxels: NDArray[np.int64]) -> tuple[float, float, float]:
        """Of voxels ``[N, 3]`` of the image: largest distance outside, largest depth inside, and the share inside.

        Outside counts to the nearest voxel of the CTV, inside to the nearest that is not CTV; 0 where no voxel lies
        on that side.
        """
        inside = self._contains(voxels)
        points = voxels * self._spacing
        cells = (_CELLS * self._spacing.min()).tolist()
        outermost = 0.0 if inside.all() else largest_distance(points[~inside], self._surface, cells)
        deepest = largest_distance(points[inside], self._shell, cells) if inside.any() else 0.0
        return outermost, deepest, float(inside.mean())

    def _contains(self, voxels: NDArray[np.int64]) -> NDArray[np.bool_]:
        index = voxels - self._corner
        near = ((index >= 0) & (index < self._ctv.shape)).all(axis=1)
        found = np.zeros(len(voxels), dtype=bool)
        found[near] = self._ctv[tuple(index[near].T)]
        return found

    @cached_property
    def _surface(self) -> cKDTree:
        """Voxels of the CTV that touch its outside with a face."""
        inner = self._ctv.copy()
        for here, beside in _neighbours():
            inner[here] &= self._ctv[beside]
        return self._tree(self._ctv & ~inner)

    @cached_property
    def _shell(self) -> cKDTree:
        """Voxels outside the CTV that touch it with a face."""
        grown = self._ctv.copy()
        for here, beside in _neighbours():
            grown[here] |= self._ctv[beside]
        return self._tree(grown & ~self._ctv)

    def _tree(self, mask: NDArray[np.bool_]) -> cKDTree:
        from scipy.spatial import cKDTree

        points = (np.argwhere(mask) + self._corner) * self._spacing
        return cKDTree(points, balanced_tree=False, compact_nodes=False)


def largest_distance(points: NDArray[np.float64], tree: cKDTree, cells: Sequence[float]) -> float:
    """Largest distance of ``points`` ``[N, 3]`` to their nearest neighbours in ``tree``; exact.

    Distances of two points differ by no more than the points do: one point is asked for each cube of a side in
    ``cells`` (falling), and the others of a cube only when they can exceed what is known.
    """
    for cell in cells:
        if len(points) <= _FEW:
            break
        _, first, cube = np.unique(_cube_numbers(points, cell), return_index=True, return_inverse=True)
        found = tree.query(points[first])[0]
        points = points[(found + cell * np.sqrt(3) >= found.max())[cube]]
    return float(tree.query(points)[0].max())


def _cube_numbers(points: NDArray[np.float64], cell: float) -> NDArray[np.int64]:
    index = np.floor((points - points.min(axis=0)) / cell).astype(np.int64)
    sides = index.max(axis=0) + 1
    numbers: NDArray[np.int64] = (index[:, 0] * sides[1] + index[:, 1]) * sides[2] + index[:, 2]
    return numbers


def _neighbours() -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Pairs of views of an array: voxels, and their neighbours in one of the six directions."""
    pairs = []
    for axis in range(3):
        lower, upper = [slice(None)] * 3, [slice(None)] * 3
        lower[axis], upper[axis] = slice(None, -1), slice(1, None)
        pairs += [(tuple(lower), tuple(upper)), (tuple(upper), tuple(lower))]
    return pairs
