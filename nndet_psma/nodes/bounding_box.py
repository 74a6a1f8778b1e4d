"""Minimum-volume oriented bounding box: how the DWI study of 2022 (dwi2022) measures nodes.

Which boxes are tried: every box with one face flush with a facet of the convex hull, or two opposite faces flush with
an edge each; round that direction the rectangle is the smallest one (one side flush with an edge of the outline:
rotating calipers). O'Rourke (Int. J. Comput. Inf. Sci. 14:183, 1985) proves that some smallest box has two adjacent
faces flush with an edge each; the boxes left out have three edges flush with three adjacent faces and no facet. The
best is then turned about its own axes as long as that helps. A cuboid at any orientation comes out exactly. Of solids
with very many facets (organs) only a sample of them is tried.

Voxels: their corners would favour boxes along the axes of the image, since along a diagonal a voxel with corners is up
to 1.7 times as wide. So a voxel counts as the ellipsoid inside it: along an image axis it has its side length, and
along no direction more than its longest side. A cuboid of voxels along the axes still has exactly its extents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PARALLEL = 1e-9  # sine of the angle below which two directions are one
_TIE = 1e-9  # relative difference of volumes that counts as none
_BLOCK = 1 << 21  # numbers looked at together: 16 MB
_TURNS = 20
_MANY = 600  # edges of the hull up to which every direction is tried: a node of 3 cm in voxels of 0.7 mm


@dataclass(frozen=True)
class OrientedBox:
    """A box at any orientation, in mm along the array axes (z, y, x); voxel ``i`` starts at ``i * spacing``.

    Attributes:
        centre: its centre.
        axes: ``[3, 3]`` unit vectors of its sides, rows in the order of ``sides``.
        sides: lengths in mm, longest first.
        narrowest: width in mm of what is inside along the direction in which it is narrowest: at most the shortest
            side, which is one of the box and need not be one of the solid.
        narrowest_axis: unit vector of that direction; of equally narrow ones that along which voxels are widest.
    """

    centre: NDArray[np.float64]
    axes: NDArray[np.float64]
    sides: tuple[float, float, float]
    narrowest: float
    narrowest_axis: NDArray[np.float64]

    @property
    def volume(self) -> float:
        """Volume in mm3."""
        return float(np.prod(self.sides))


@dataclass(frozen=True)
class _Hull:
    """Convex hull: corners ``[V, 3]``, facet normals ``[F, 3]``, edges as directions ``[E, 3]`` between two facets.

    ``voxel`` is the size of the voxels whose corners the points are, 0 for points that are points.
    """

    corners: NDArray[np.float64]
    normals: NDArray[np.float64]
    edges: NDArray[np.float64]
    facets: NDArray[np.int64]
    voxel: NDArray[np.float64]

    def excess(self, directions: NDArray[np.float64]) -> NDArray[np.float64]:
        """How much wider a voxel is along each direction ``[D, 3]`` with corners than as an ellipsoid, mm."""
        scaled = directions * self.voxel
        wider: NDArray[np.float64] = np.abs(scaled).sum(axis=-1) - np.sqrt((scaled**2).sum(axis=-1))
        return wider


def minimum_box(
    points: NDArray[np.float64], voxel: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> OrientedBox:
    """The smallest box round points ``[N, 3]``; of equally small boxes the one with the shortest side.

    Args:
        points: mm (z, y, x).
        voxel: mm (z, y, x): the points are the corners of voxels of this size, which are rounded to ellipsoids.

    Raises:
        ValueError: fewer than four points, or all in one plane.
    """
    hull = _convex_hull(points, np.array(voxel, dtype=np.float64))
    directions = _directions(hull)
    best = _best_frame(hull, directions)
    for _ in range(_TURNS):
        turned = _best_frame(hull, best)
        if _volume(hull, turned) >= _volume(hull, best) * (1 - _TIE):
            break
        best = turned
    return _box_along(hull, best, directions)


def mask_corners(mask: NDArray[np.bool_], spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    """Voxel corners of a mask (z, y, x) that can be corners of its convex hull, ``[N, 3]`` mm.

    Of every line of corners along x only the first and the last can.
    """
    rows = mask.any(axis=2)
    width = mask.shape[2]
    low = np.where(rows, mask.argmax(axis=2), width + 1)
    high = np.where(rows, width - mask[:, :, ::-1].argmax(axis=2), -1)
    left, right = _over_corners(low, np.minimum, width + 1), _over_corners(high, np.maximum, -1)
    z, y = np.nonzero(right >= 0)
    ends = [np.stack([z, y, line[z, y]], axis=1) for line in (left, right)]
    return np.concatenate(ends).astype(np.float64) * spacing


def _over_corners(values: NDArray[np.int64], fold: np.ufunc, outside: int) -> NDArray[np.int64]:
    """Fold of the (up to four) rows that meet at each corner of the (z, y) plane."""
    padded = np.pad(values, 1, constant_values=outside)
    along = fold(padded[1:], padded[:-1])
    folded: NDArray[np.int64] = fold(along[:, 1:], along[:, :-1])
    return folded


def _convex_hull(points: NDArray[np.float64], voxel: NDArray[np.float64]) -> _Hull:
    from scipy.spatial import ConvexHull, QhullError

    try:
        found = ConvexHull(points)
    except QhullError:
        raise ValueError("a box needs points that do not lie in one plane") from None
    normals = found.equations[:, :3]
    first = np.repeat(np.arange(len(normals)), 3)
    second = found.neighbors.reshape(-1)
    corners = found.simplices[:, [[1, 2], [2, 0], [0, 1]]].reshape(
        -1, 2
    )  # neighbour k lies opposite corner k
    bend = np.linalg.norm(np.cross(normals[first], normals[second]), axis=1)
    real = (first < second) & (bend > _PARALLEL)  # the others lie inside a facet that was cut into triangles
    edges = points[corners[real, 1]] - points[corners[real, 0]]
    edges /= np.linalg.norm(edges, axis=1, keepdims=True)
    return _Hull(points[found.vertices], normals, edges, np.stack([first[real], second[real]], axis=1), voxel)


def _directions(hull: _Hull) -> NDArray[np.float64]:
    """Directions ``[D, 3]`` that a side of the box may have; a sample of those of an organ."""
    flush = _distinct(hull.normals)
    if len(hull.edges) <= _MANY:
        return np.concatenate([flush, _antipodal(hull)])
    along = np.eye(3)  # of the image: exact for a cuboid of voxels however rough its surface is
    return np.concatenate([along, flush[:: max(1, 2 * len(flush) // _MANY)]])


def _distinct(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Directions without those that are the same or opposite up to rounding."""
    sign = np.sign(np.where(np.abs(directions) > _PARALLEL, directions, 0))
    first = np.take_along_axis(sign, (sign != 0).argmax(axis=1)[:, None], axis=1)
    rounded = np.round(directions * first, 7) + 0.0
    return directions[np.unique(rounded, axis=0, return_index=True)[1]]


def _antipodal(hull: _Hull) -> NDArray[np.float64]:
    """Directions ``[A, 3]`` perpendicular to two edges that touch opposite parallel planes round the hull.

    On the sphere of normals an edge is the arc between those of its facets; two edges are antipodal where the arc of
    one crosses the mirrored arc of the other.
    """
    side = hull.normals @ hull.edges.T  # [F, E]
    apart = (
        side[hull.facets[:, 0]] * side[hull.facets[:, 1]] < 0
    )  # [e, g]: ends of arc e on both sides of circle g
    one, other = np.nonzero(np.triu(apart & apart.T, 1))
    across = np.cross(hull.edges[one], hull.edges[other])
    length = np.linalg.norm(across, axis=1)
    kept = length > _PARALLEL
    one, other, across = one[kept], other[kept], across[kept] / length[kept, None]
    middle = hull.normals[hull.facets].sum(axis=1)  # points to the arc
    opposite = np.einsum("ij,ij->i", across, middle[one]) * np.einsum("ij,ij->i", across, middle[other]) < 0
    return _distinct(across[opposite]) if opposite.any() else across[:0]


def _best_frame(hull: _Hull, directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axes ``[3, 3]`` of the smallest box that has one side along one of the directions ``[D, 3]``."""
    height = _extent(hull, directions)
    side = directions @ hull.normals.T  # [D, F]
    outline = side[:, hull.facets[:, 0]] * side[:, hull.facets[:, 1]] <= _PARALLEL**2
    which, edge = np.nonzero(outline)
    along, across = _frames(directions[which], hull.edges[edge])
    usable = np.linalg.norm(along, axis=1) > 0.5
    which, along, across = which[usable], along[usable], across[usable]
    sizes = np.stack([height[which], _extent(hull, along), _extent(hull, across)], axis=1)
    volume = sizes.prod(axis=1)
    ties = np.flatnonzero(volume <= volume.min() * (1 + _TIE))
    best = ties[int(np.argmin(sizes[ties].min(axis=1)))]
    return np.stack([directions[which[best]], along[best], across[best]])


def _frames(
    direction: NDArray[np.float64], edge: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The part of each edge at right angles to its direction as unit vector (0 where parallel), and the third axis."""
    part = edge - np.einsum("ij,ij->i", edge, direction)[:, None] * direction
    length = np.linalg.norm(part, axis=1, keepdims=True)
    along = np.divide(part, length, out=np.zeros_like(part), where=length > 1e-6)
    return along, np.cross(direction, along)


def _extent(hull: _Hull, directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Width of the hull, its voxels rounded, along unit vectors ``[D, 3]``."""
    step = max(1, _BLOCK // len(hull.corners))
    parts = [
        np.ptp(hull.corners @ directions[start : start + step].T, axis=0)
        for start in range(0, len(directions), step)
    ]
    width = np.concatenate(parts) if parts else np.zeros(0)
    return width - hull.excess(directions)


def _volume(hull: _Hull, axes: NDArray[np.float64]) -> float:
    return float(_extent(hull, axes).prod())


def _box_along(hull: _Hull, axes: NDArray[np.float64], directions: NDArray[np.float64]) -> OrientedBox:
    """The box along ``axes`` ``[3, 3]``; the narrowest width is that along these or ``directions`` ``[D, 3]``."""
    places = hull.corners @ axes.T
    low, high = places.min(axis=0), places.max(axis=0)
    sides = high - low - hull.excess(axes)
    order = np.argsort(-sides, kind="stable")
    longest, middle, shortest = sides[order].tolist()
    tried = np.concatenate([axes, directions])
    widths = np.concatenate([sides, _extent(hull, directions)])
    ties = np.flatnonzero(widths <= widths.min() * (1 + _TIE))
    least = ties[int(np.argmax(np.linalg.norm(tried[ties] * hull.voxel, axis=1)))]
    return OrientedBox(
        (low + high) / 2 @ axes, axes[order], (longest, middle, shortest), float(widths[least]), tried[least]
    )
