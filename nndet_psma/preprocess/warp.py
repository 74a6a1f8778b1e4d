"""One affine map from store pixels to detector pixels: planned scale, augmentation, crop; images and boxes alike.

Sampling the map and applying it are separate, so a map can be recorded, replayed and inverted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nndet_psma.core.boxes import Boxes


@dataclass(frozen=True)
class PlaneMap:
    """``store = matrix @ detector + offset`` in (y, x) edge coordinates.

    Attributes:
        matrix: 2x2.
        offset: (y, x).
        size: detector (height, width).
    """

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]
    size: tuple[int, int]

    def to_store(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Detector (y, x) points ``[N, 2]`` in store voxels."""
        return np.asarray(points @ self.matrix.T + self.offset, dtype=np.float64)

    def to_detector(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Inverse of :meth:`to_store`."""
        return np.asarray(np.linalg.solve(self.matrix, (points - self.offset).T).T, dtype=np.float64)

    def boxes_to_store(self, boxes: Boxes) -> Boxes:
        """2D boxes from detector pixels to store voxels: hull of the four corners, exact without rotation."""
        if len(boxes) == 0:
            return boxes.copy()
        corners = boxes[:, [[0, 1], [0, 3], [2, 1], [2, 3]]].reshape(-1, 2)
        mapped = self.to_store(corners).reshape(-1, 4, 2)
        return np.concatenate([mapped.min(axis=1), mapped.max(axis=1)], axis=1)


def plane_map(
    centre: tuple[float, float],
    scale: float,
    size: tuple[int, int],
    *,
    rotation_degrees: float = 0.0,
    flip: bool = False,
    shift: tuple[float, float] = (0.0, 0.0),
) -> PlaneMap:
    """Map whose detector image of ``size`` is centred on ``centre`` (store (y, x)) at ``scale`` pixels per voxel.

    ``flip`` mirrors left-right, ``rotation_degrees`` turns about the centre, ``shift`` (y, x) moves the content by
    detector pixels.
    """
    angle = np.deg2rad(rotation_degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mirror = np.diag([1.0, -1.0 if flip else 1.0])
    matrix = rotation @ mirror / scale
    middle = np.array(size, dtype=np.float64) / 2 + np.array(shift)
    return PlaneMap(matrix, np.array(centre) - matrix @ middle, size)


def warp(image: NDArray[np.float32], mapping: PlaneMap, *, nearest: bool = False) -> Tensor:
    """Resample ``[C, y, x]`` onto the detector grid, ``[C, height, width]``; 0 outside the image.

    Bilinear, or nearest neighbour for instance ids.
    """
    height, width = mapping.size
    rows = torch.arange(height, dtype=torch.float32) + 0.5
    columns = torch.arange(width, dtype=torch.float32) + 0.5
    matrix, offset = torch.from_numpy(mapping.matrix).float(), torch.from_numpy(mapping.offset).float()
    y = matrix[0, 0] * rows[:, None] + matrix[0, 1] * columns[None, :] + offset[0]
    x = matrix[1, 0] * rows[:, None] + matrix[1, 1] * columns[None, :] + offset[1]
    # grid_sample's coordinates run from -1 to 1 over the image's edges (align_corners=False): our edge coordinates
    grid = torch.stack([2 * x / image.shape[2] - 1, 2 * y / image.shape[1] - 1], dim=-1)
    source = torch.from_numpy(np.ascontiguousarray(image))[None]
    mode = "nearest" if nearest else "bilinear"
    return functional.grid_sample(source, grid[None], mode=mode, padding_mode="zeros", align_corners=False)[0]
