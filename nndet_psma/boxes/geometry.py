"""Where an array lies in the patient: spacing, origin, direction, and the maps between voxels and millimetres.

Arrays are indexed ``[z, y, x]``; patient coordinates are LPS millimetres in the order ``(x, y, z)`` as in DICOM and
SimpleITK. Voxel coordinates are voxel *edges* in array order (see :mod:`nndet_psma.boxes.box`), so the centre of
voxel ``i`` lies at ``i + 0.5``; SimpleITK's own index coordinates put it at ``i``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.box import Boxes


@dataclass(frozen=True)
class Geometry:
    """Grid of an image.

    Attributes:
        shape: voxels along (z, y, x).
        spacing: millimetres along (z, y, x).
        origin: LPS position (x, y, z) of the centre of the first voxel, mm.
        direction: row-major 3x3; column ``c`` is the patient direction of image axis ``c`` in (x, y, z) order.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """3x3: a step in array order (z, y, x), in voxels, to a step in patient order (x, y, z), in mm."""
        by_xyz = np.array(self.direction, dtype=np.float64).reshape(3, 3) * np.array(self.spacing[::-1])
        by_zyx: NDArray[np.float64] = by_xyz[:, ::-1]
        return by_zyx

    def to_patient(self, points: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Voxel-edge coordinates ``[N, 3]`` (z, y, x) to LPS millimetres ``[N, 3]`` (x, y, z)."""
        centred = np.asarray(points, dtype=np.float64) - 0.5
        found: NDArray[np.float64] = centred @ self.matrix.T + np.array(self.origin)
        return found

    def to_voxels(self, points: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Inverse of :meth:`to_patient`."""
        offset = np.asarray(points, dtype=np.float64) - np.array(self.origin)
        return np.linalg.solve(self.matrix, offset.T).T + 0.5

    def same_grid(self, other: Geometry, tolerance_mm: float = 1e-2) -> bool:
        """Same shape, and all eight corners within ``tolerance_mm`` of each other."""
        if self.shape != other.shape:
            return False
        corners = np.array(list(product(*((0, n) for n in self.shape))), dtype=np.float64)
        return bool(np.abs(self.to_patient(corners) - other.to_patient(corners)).max() <= tolerance_mm)


def box_corners(boxes: Boxes) -> NDArray[np.float64]:
    """All eight corners of 3D boxes, ``[N, 8, 3]`` (z, y, x)."""
    picks = np.array(list(product((0, 1), repeat=3)))
    columns = np.arange(3) + 3 * picks
    return boxes[:, columns]


def map_boxes(boxes: Boxes, source: Geometry, target: Geometry) -> Boxes:
    """3D boxes of one grid in the voxels of another: the hull of the eight mapped corners.

    Exact when the grids differ by flips, permutations, crops and spacing; for grids rotated against each other the
    hull is larger than the box.
    """
    if len(boxes) == 0:
        return boxes.copy()
    corners = box_corners(boxes).reshape(-1, 3)
    mapped = target.to_voxels(source.to_patient(corners)).reshape(-1, 8, 3)
    return np.concatenate([mapped.min(axis=1), mapped.max(axis=1)], axis=1)
