"""The augmentation of the DWI study: rotation, shear and translation in one interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from torch.nn import functional

Offsets = tuple[float, ...]


class SmallAffineTransform(BasicTransform):
    """Rotate, shear and shift an image and its labels, linear and nearest; what comes in from outside is 0.

    dwi2022: skewing of 0 to 5 degrees (taken as rotation), shearing of 0 to 5 degrees, translation by up to a tenth.
    Rotation and shear lie in the plane of the last two axes: slices of DWI are several times as thick as their pixels.

    Args:
        rotation: largest angle, degrees.
        shear: largest angle, degrees.
        translation: largest shift as a share of the patch along each axis; not along the slices.
        outside: label of what comes in from outside.
    """

    def __init__(self, rotation: float, shear: float, translation: float, outside: int = -1) -> None:
        super().__init__()
        self.rotation, self.shear, self.translation, self.outside = rotation, shear, translation, outside

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        """One matrix for image and labels, for ``torch.nn.functional.affine_grid``."""
        angle, sheared = np.deg2rad(
            [np.random.uniform(-self.rotation, self.rotation), np.random.uniform(-self.shear, self.shear)]
        )
        shift = np.random.uniform(-self.translation, self.translation, 2)
        shape = tuple(data_dict["image"].shape[1:])
        return {
            "matrix": affine_matrix(shape, float(angle), float(sheared), (float(shift[0]), float(shift[1])))
        }

    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        return warp(img.float(), params["matrix"], "bilinear", 0.0)

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> torch.Tensor:
        moved = warp(segmentation.float(), params["matrix"], "nearest", float(self.outside))
        return moved.to(segmentation.dtype)


def affine_matrix(
    shape: tuple[int, ...], angle: float, sheared: float, shift: tuple[float, float]
) -> torch.Tensor:
    """Matrix ``[dim, dim + 1]`` from output to input in the coordinates of ``affine_grid`` (-1..1; x, y, z).

    Args:
        shape: voxels (z, y, x) or (y, x).
        angle: rotation in the plane, radians.
        sheared: shear of x along y, radians.
        shift: along (y, x) as a share of the side.
    """
    dim = len(shape)
    height, width = shape[-2:]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    plane = turn @ np.array([[1.0, np.tan(sheared)], [0.0, 1.0]])  # of (x, y) in voxels
    scale = np.diag([width / 2, height / 2])
    matrix = np.zeros((dim, dim + 1))
    matrix[:2, :2] = np.linalg.inv(scale) @ plane @ scale
    matrix[:2, -1] = -2 * np.array(shift[::-1])  # a share of the side is twice that of the half side
    if dim == 3:
        matrix[2, 2] = 1.0
    return torch.from_numpy(matrix).float()


def warp(array: torch.Tensor, matrix: torch.Tensor, mode: str, outside: float) -> torch.Tensor:
    """``[C, ...]`` interpolated through ``matrix``; ``outside`` beyond its borders."""
    grid = functional.affine_grid(matrix[None], [1, *array.shape], align_corners=False)
    moved = functional.grid_sample(
        array[None] - outside, grid, mode=mode, padding_mode="zeros", align_corners=False
    )
    return moved[0] + outside


def before(first: list[BasicTransform], others: ComposeTransforms) -> ComposeTransforms:
    """All of ``others`` behind ``first``."""
    return ComposeTransforms([*first, *others.transforms])
