"""Lymph nodes: what one is like, and drawing its look."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np

from nndet_psma.dataset.phantom.canvas import Array, Canvas, Mask, Window
from nndet_psma.dataset.phantom.options import NodeLook

NodeKind = Literal["positive", "benign", "mimic"]

SLACK_MM = (0.2, 0.8)
"""With the look of medium difficulty, fitted to the HU of positive nodes (Xu et al. 2023, table 2)."""

LOOSE_SLACK_MM = (0.8, 1.6)
LOOSE_SHARE = 0.16
"""Some contours are drawn generously and take fat in."""


@dataclass(frozen=True)
class Node:
    """One lymph node.

    Attributes:
        kind: "positive" (labelled), "benign", or "mimic": looks positive, is not, and lies outside the CTV.
        station: such as "left external iliac", "right obturator" or "presacral".
        centre_mm: (z, y, x) in the frame of :class:`Canvas`.
        radii_mm: half axes: along z, and the long and the short one in the axial plane.
        angle: of the long axis in the axial plane, radians from y towards x.
        hu: mean HU of the solid part on a CT.
        texture: standard deviation of HU inside.
        hilum: radius of the fatty hilum as a fraction of the node's; 0 is none.
        calcified: holds a bright speck: calcium, or a clip or vessel that touches it.
        slack_mm: how far the drawn contour lies outside the node.
    """

    kind: NodeKind
    station: str
    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    angle: float
    hu: float
    texture: float
    hilum: float
    calcified: bool
    slack_mm: float

    @property
    def positive(self) -> bool:
        """True for a node that is labelled."""
        return self.kind == "positive"

    @property
    def short_axis_mm(self) -> float:
        """Short axis in the axial plane, mm."""
        return 2 * self.radii_mm[2]

    def scaled(self, factor: float) -> Node:
        """The same node with all axes multiplied."""
        rz, long, short = (radius * factor for radius in self.radii_mm)
        return replace(self, radii_mm=(rz, long, short))

    def level(self, grids: tuple[Array, Array, Array], grow_mm: float = 0.0) -> Array:
        """Normalised distance from the centre: 1 on the surface (moved outwards by ``grow_mm``).

        Args:
            grids: broadcastable z, y, x positions, mm.
            grow_mm: added to every half axis.
        """
        z, y, x = (g - c for g, c in zip(grids, self.centre_mm, strict=True))
        along = y * np.cos(self.angle) + x * np.sin(self.angle)
        across = x * np.cos(self.angle) - y * np.sin(self.angle)
        rz, long, short = (r + grow_mm for r in self.radii_mm)
        level: Array = np.sqrt((z / rz) ** 2 + (along / long) ** 2 + (across / short) ** 2)
        return level

    def window(self, canvas: Canvas, grow_mm: float) -> Window:
        """Voxels round the node, with ``grow_mm`` to spare."""
        reach = max(self.radii_mm) + grow_mm
        centre = np.array(self.centre_mm)
        return canvas.window(centre - reach, centre + reach)

    def contour(self, canvas: Canvas, grow_mm: float | None = None) -> tuple[Window, Mask]:
        """Voxels inside the drawn contour; at least the one nearest to the centre.

        Args:
            canvas: the grid.
            grow_mm: distance of the contour from the surface; None is the node's own slack.
        """
        grow = self.slack_mm if grow_mm is None else grow_mm
        window = self.window(canvas, grow + max(canvas.geometry.spacing))
        level = self.level(canvas.grids(window), grow)
        mask = level <= 1
        if mask.size and not mask.any():
            mask = level <= level.min()
        return window, mask

    def share(self, canvas: Canvas, window: Window, subvoxels: int = 3) -> Array:
        """Share of each voxel of ``window`` that the node fills, sampled at ``subvoxels`` points along every axis."""
        grids, spacing = canvas.grids(window), canvas.geometry.spacing
        filled = np.zeros(tuple(grid.size for grid in grids))
        for offset in product(range(subvoxels), repeat=3):
            shift = [((k + 0.5) / subvoxels - 0.5) * s for k, s in zip(offset, spacing, strict=True)]
            filled += self.level((grids[0] + shift[0], grids[1] + shift[1], grids[2] + shift[2])) <= 1
        return filled / subvoxels**3


def sample_node(kind: NodeKind, look: NodeLook, rng: np.random.Generator, *, calcified: bool = False) -> Node:
    """Draw size, shape and HU of a node from a look; it has no place yet (station "", centre at the origin)."""
    short = float(np.clip(look.short_axis * np.exp(rng.normal(0, look.spread)), *look.limits))
    elongation = rng.uniform(*look.elongation)
    height = short * rng.uniform(0.95, 1.25) * (1 + elongation) / 2
    return Node(
        kind=kind,
        station="",
        centre_mm=(0.0, 0.0, 0.0),
        radii_mm=(height / 2, short * elongation / 2, short / 2),
        angle=0.0,
        hu=float(rng.normal(*look.hu)),
        texture=float(rng.uniform(*look.texture)),
        hilum=float(rng.uniform(0.4, 0.65)) if rng.random() < look.hilum else 0.0,
        calcified=calcified,
        slack_mm=float(rng.uniform(*(LOOSE_SLACK_MM if rng.random() < LOOSE_SHARE else SLACK_MM))),
    )
