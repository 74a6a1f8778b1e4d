"""Between which sizes the short diameter of a node may lie, given that it was drawn on voxels.

A voxel is part of a node when its centre is. All that voxels can do to a diameter follows from that, for a convex node
and a perfect mask (what a reader or a model does to the outline is not in the zone):

- **Too large.** Along any direction the centres reach no further than the node, and a size adds to them the width
  ``h`` of one voxel along its axis. So the node is at most ``h`` smaller. The smallest box of a round node need not lie
  along its axes and is then wider than it, so its lower end starts from the narrowest width of the mask.
- **Too small, along the axis.** Beyond the outermost centre each end of the node lies anywhere within one voxel, half
  of which the size already holds: an error that is uniform over half a voxel to both sides. 95 % of the sums of two
  such errors lie within ``(1 - sqrt(0.05)) h = 0.78 h``.
- **Too small, across the axis.** No row of voxels need run through both poles of a node; the nearest runs up to half a
  voxel beside them. Its chord in a round node of diameter ``d`` is ``sqrt(d^2 - t^2)``, ``t`` being the size of a voxel
  across the axis: thick slices matter here.

The in-plane short axis is measured between voxel corners, so its ``h`` is ``abs(cos) + abs(sin)`` pixels, on average
over directions ``4 / pi`` of them: corners reach beyond most outlines, and no allowance along the axis is needed.

``benchmarks/voxel_zone.py`` draws spheres and ellipsoids at random places and orientations and counts how often the
zone holds the true diameter.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nndet_psma.nodes.bounding_box import OrientedBox

Zone = tuple[float, float]
Spacing = tuple[float, float, float]

_CORNERS = 4 / math.pi  # mean of abs(cos) + abs(sin) over all directions
_BOTH_ENDS = 1 - math.sqrt(0.05)  # voxels; 95 % of the sum of two uniform errors of half a voxel

_TIE = 1e-9  # relative difference of sides that counts as none


def box_zone(box: OrientedBox, spacing: Spacing) -> Zone:
    """Zone, mm, of the shortest side of a minimum-volume box of voxels.

    Args:
        box: round the voxels of a node.
        spacing: mm (z, y, x).
    """
    low = box.narrowest - _along(box.narrowest_axis, spacing)
    shortest = box.sides[2]
    widths = [
        _along(axis, spacing)
        for axis, side in zip(box.axes, box.sides, strict=True)
        if side <= shortest * (1 + _TIE)  # of equally short sides that with the wider voxels counts
    ]
    high = max(math.hypot(shortest, _across(width, spacing)) + _BOTH_ENDS * width for width in widths)
    return max(0.0, low), high


def in_plane_zone(short_mm: float, spacing: Spacing) -> Zone:
    """Zone, mm, of an in-plane short axis; pixels that are no squares count with their longer side.

    Args:
        short_mm: as measured between voxel corners.
        spacing: mm (z, y, x).
    """
    pixel = max(spacing[1:])
    return max(0.0, short_mm - _CORNERS * pixel), math.hypot(short_mm, _across(pixel, spacing))


def _along(axis: NDArray[np.float64], spacing: Spacing) -> float:
    """Width of a voxel along a unit vector: that of the ellipsoid inside it, as the box counts voxels."""
    return float(np.linalg.norm(axis * np.asarray(spacing)))


def _across(width: float, spacing: Spacing) -> float:
    """Size of a voxel at right angles to an axis along which it has that width."""
    return math.sqrt(max(0.0, float(np.square(spacing).sum()) - width**2))
