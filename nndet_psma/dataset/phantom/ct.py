"""Painting a contrast-enhanced CT from an anatomy: HU, partial volume, texture, noise."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nndet_psma.dataset.phantom.anatomy import Anatomy
from nndet_psma.dataset.phantom.canvas import Array
from nndet_psma.dataset.phantom.nodes import Node
from nndet_psma.dataset.phantom.tissue import VESSELS, Tissue

# mean HU, its standard deviation between cases, standard deviation of the texture inside
HU: dict[Tissue, tuple[float, float, float]] = {
    Tissue.AIR: (-1000, 0, 0),
    Tissue.TABLE: (-60, 30, 10),
    Tissue.SKIN: (0, 10, 10),
    Tissue.FAT: (-104, 3, 7),
    Tissue.MUSCLE: (56, 5, 9),
    Tissue.CORTEX: (620, 60, 90),
    Tissue.MARROW: (170, 30, 55),
    Tissue.CARTILAGE: (70, 8, 8),
    Tissue.ARTERY: (205, 18, 6),
    Tissue.VEIN: (175, 14, 8),
    Tissue.SMALL_VESSEL: (170, 20, 8),
    Tissue.URETER: (60, 90, 10),
    Tissue.BLADDER: (6, 4, 4),
    Tissue.BLADDER_CONTRAST: (230, 60, 15),
    Tissue.PROSTATE: (52, 6, 12),
    Tissue.PROSTATE_BED: (25, 10, 18),
    Tissue.RECTUM_WALL: (45, 6, 8),
    Tissue.STOOL: (-40, 40, 90),
    Tissue.BOWEL_WALL: (60, 8, 8),
    Tissue.BOWEL_SOFT: (35, 10, 12),
    Tissue.BOWEL_CONTRAST: (300, 45, 35),
    Tissue.GAS: (-900, 20, 15),
    Tissue.CLIP: (1500, 200, 0),
    Tissue.NODE: (-104, 0, 0),  # painted over by the node's own HU
}
HILUM_HU = -75.0
CALCIFICATION_HU = (320.0, 620.0)
BLUR_MM = 1.0
TEXTURE_MM = 3.0
SUBVOXELS = 3


def paint_ct(anatomy: Anatomy, rng: np.random.Generator, noise: float) -> NDArray[np.int16]:
    """HU volume ``[z, y, x]``.

    Args:
        anatomy: what to paint.
        rng: of the scan.
        noise: standard deviation of the image noise, HU.
    """
    step = anatomy.geometry.spacing[1:]
    texture = _smooth_noise(rng, anatomy.tissue.shape, tuple(TEXTURE_MM / s for s in step))
    image = _paint_tissues(anatomy, texture, rng)
    for node in anatomy.nodes:
        _paint_node(image, anatomy, node, texture, rng)
    image = ndimage.gaussian_filter(image, (0.0, BLUR_MM / step[0], BLUR_MM / step[1]), truncate=3)
    if noise > 0:
        image += noise * _smooth_noise(rng, image.shape, (0.5, 0.5))
    hu: NDArray[np.int16] = np.clip(np.rint(image), -1024, 3071).astype(np.int16)
    return hu


def _smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], sigma: tuple[float, ...]
) -> NDArray[np.float32]:
    """Noise of standard deviation 1, correlated within slices over ``sigma`` voxels."""
    white = rng.standard_normal(shape, dtype=np.float32)
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(white, (0.0, *sigma), truncate=3)
    return smooth / max(float(smooth.std()), 1e-6)


def _paint_tissues(
    anatomy: Anatomy, texture: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    means = np.zeros(len(Tissue), dtype=np.float32)
    spreads = np.zeros(len(Tissue), dtype=np.float32)
    for tissue, (mean, between, within) in HU.items():
        means[tissue] = mean + rng.normal(0, between)
        spreads[tissue] = within
    means[Tissue.ARTERY] = np.clip(means[Tissue.ARTERY], 165, 250)
    means[Tissue.VEIN] = np.clip(means[Tissue.VEIN], 150, 240)
    means[Tissue.BOWEL_CONTRAST] = np.clip(means[Tissue.BOWEL_CONTRAST], 200, 400)
    # the fat round a node is the fat of this case
    means[Tissue.NODE], spreads[Tissue.NODE] = means[Tissue.FAT], spreads[Tissue.FAT]
    return means[anatomy.tissue] + spreads[anatomy.tissue] * texture


def _paint_node(
    image: NDArray[np.float32],
    anatomy: Anatomy,
    node: Node,
    texture: NDArray[np.float32],
    rng: np.random.Generator,
) -> None:
    """Blend a node in by the share of each voxel that it fills; vessels keep their voxels."""
    spacing = anatomy.geometry.spacing
    window = node.window(anatomy.canvas, max(spacing))
    solid, hilum = np.zeros(image[window].shape), np.zeros(image[window].shape)
    grids = anatomy.canvas.grids(window)
    for offset in product(range(SUBVOXELS), repeat=3):
        shift = [((k + 0.5) / SUBVOXELS - 0.5) * s for k, s in zip(offset, spacing, strict=True)]
        level = node.level((grids[0] + shift[0], grids[1] + shift[1], grids[2] + shift[2]))
        solid += level <= 1
        hilum += level <= node.hilum
    count = SUBVOXELS**3
    free = ~np.isin(anatomy.tissue[window], (*VESSELS, Tissue.CORTEX, Tissue.MARROW))
    solid, hilum = solid / count * free, hilum / count * free
    inside = node.hu + node.texture * texture[window]
    view = image[window]
    view += solid * (inside - view) + hilum * (HILUM_HU - node.hu)
    if node.calcified:
        _calcify(view, solid, rng)


def _calcify(view: NDArray[np.float32], solid: Array, rng: np.random.Generator) -> None:
    """Make one or two neighbouring voxels a bright speck: calcium, or a clip or vessel touching the node."""
    z, y, x = np.nonzero(solid >= min(0.7, solid.max()))
    pick = rng.integers(len(z))
    stop = x[pick] + 1 + int(rng.integers(0, 2))
    view[z[pick], y[pick], x[pick] : stop] = rng.uniform(*CALCIFICATION_HU)
