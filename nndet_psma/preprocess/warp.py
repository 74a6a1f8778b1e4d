"""One affine map from store pixels to detector pixels: planned scale, augmentation, crop; images and boxes alike.

Sampling the map and applying it are separate, so a map can be recorded, replayed and inverted. A part of the detector
image has a map of its own, so that nothing is resampled where nothing is to be seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nndet_psma.boxes.box import Boxes

PixelBox = tuple[int, int, int, int]
"""``(y0, x0, y1, x1)`` in whole pixels, half-open."""


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
        return _hulls(boxes, self.to_store)

    def boxes_to_detector(self, boxes: Boxes) -> Boxes:
        """2D boxes from store voxels to detector pixels: hull of the four corners, exact without rotation."""
        return _hulls(boxes, self.to_detector)

    def part(self, box: PixelBox) -> PlaneMap:
        """Map of the detector pixels in ``box``, which may reach beyond the detector image."""
        y0, x0, y1, x1 = box
        return PlaneMap(self.matrix, self.matrix @ (y0, x0) + self.offset, (y1 - y0, x1 - x0))

    def cropped(self, origin: tuple[int, int]) -> PlaneMap:
        """The same for a store image whose first pixel is voxel ``origin`` (y, x)."""
        return PlaneMap(self.matrix, self.offset - origin, self.size)

    def view(self, box: PixelBox) -> PixelBox:
        """Detector pixels that show any of the store voxels in ``box``; empty when none does.

        Bilinear interpolation spreads a voxel by half its size.
        """
        spread = np.array([[box[0] - 0.5, box[1] - 0.5, box[2] + 0.5, box[3] + 0.5]])
        (y0, x0, y1, x1), (height, width) = self.boxes_to_detector(spread)[0], self.size
        y0, x0 = np.clip(np.floor([y0, x0]), 0, self.size).astype(int).tolist()
        y1, x1 = np.clip(np.ceil([y1, x1]), (y0, x0), (height, width)).astype(int).tolist()
        return y0, x0, y1, x1

    def footprint(self, box: PixelBox) -> PixelBox:
        """The part of the store voxels in ``box`` that this map's detector image is interpolated from."""
        lower_y, lower_x, upper_y, upper_x = self.boxes_to_store(np.array([[0.0, 0.0, *self.size]]))[0]
        # half a voxel of interpolation, and as much again for rounding
        y0, x0 = np.clip(np.floor([lower_y - 1, lower_x - 1]), box[:2], box[2:]).astype(int).tolist()
        y1, x1 = np.clip(np.ceil([upper_y + 1, upper_x + 1]), (y0, x0), box[2:]).astype(int).tolist()
        return y0, x0, y1, x1


def _hulls(boxes: Boxes, transform: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Boxes:
    if len(boxes) == 0:
        return boxes.copy()
    corners = boxes[:, [[0, 1], [0, 3], [2, 1], [2, 3]]].reshape(-1, 2)
    mapped = transform(corners).reshape(-1, 4, 2)
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
    source = torch.from_numpy(np.ascontiguousarray(image))[None]
    mode = "nearest" if nearest else "bilinear"
    grid = _sampling_grid(mapping, image.shape[1:])[None]
    return functional.grid_sample(source, grid, mode=mode, padding_mode="zeros", align_corners=False)[0]


def _sampling_grid(mapping: PlaneMap, shape: tuple[int, ...]) -> Tensor:
    """``[height, width, 2]`` (x, y) that grid_sample reads from an image of ``shape`` (y, x).

    Its coordinates run from -1 to 1 over the image's edges (align_corners=False): our edge coordinates. What depends on
    row or column alone is computed first, so that a pixel costs one addition.
    """
    height, width = mapping.size
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    grid = torch.empty((height, width, 2))
    for axis in (0, 1):
        (by_row, by_column), offset = mapping.matrix[axis] * (2 / shape[axis]), mapping.offset[axis]
        down = torch.from_numpy(by_row * rows + (2 * offset / shape[axis] - 1)).float()
        across = torch.from_numpy(by_column * columns).float()
        torch.add(down[:, None], across, out=grid[..., 1 - axis])
    return grid
