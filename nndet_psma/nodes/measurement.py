"""Size of every node of a mask: volume, the sides of its smallest box, and the in-plane axes that radiologists use.

All lengths reach to voxel *edges*: one voxel has the size of a voxel, and a cuboid of voxels along the axes of the
image exactly its extents. Two pairs of diameters are given:

- box: longest and shortest side of the minimum-volume bounding box (:mod:`nndet_psma.nodes.bounding_box`), as in
  dwi2022. It turns freely in three dimensions. A turned cuboid comes out up to one voxel too large. The smallest box of
  a round solid need not lie along its axes, so the shortest side is rather too large than too small.
- in plane: on the axial slice of largest area, the longest distance of two voxel corners, and the longest section of
  the slice's convex hull at right angles to it, as a reader would draw them: up to one pixel diagonal too large. Of a
  rectangle the longest distance is the diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.prediction import PredictedLesion
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.nodes.bounding_box import mask_corners, minimum_box
from nndet_psma.nodes.size_zone import Zone, box_zone, in_plane_zone
from nndet_psma.planners.fingerprint.lesion_shape import plane_axes

MAX_ID = 1 << 20


@dataclass(frozen=True)
class NodeMeasurement:
    """One node.

    Attributes:
        node: id in the mask; of boxes the rank from 1.
        box: tight box ``(z0, y0, x0, z1, y1, x1)``, voxel edges of the image.
        centre_mm: LPS (x, y, z) of the centre of mass.
        volume_mm3: voxels times their volume; of a detected box, that of the ellipsoid inside it.
        box_sides_mm: sides of the minimum-volume bounding box, longest first.
        box_volume_mm3: volume of that box.
        in_plane_long_mm: longest diameter on the slice of largest area.
        in_plane_short_mm: longest section at right angles to it.
        slice: that slice, counted from 0 along z.
        slices: axial slices it touches.
        cut_off: it touches the border of the image in any axis, so its sizes are lower bounds.
        score: of a detection, None of a mask.
        box_short_zone_mm: between which sizes the shortest side may lie, as far as voxels go
            (:mod:`nndet_psma.nodes.size_zone`); None of a box and in files of older versions.
        in_plane_short_zone_mm: the same of ``in_plane_short_mm``.
    """

    node: int
    box: tuple[float, ...]
    centre_mm: tuple[float, float, float]
    volume_mm3: float
    box_sides_mm: tuple[float, float, float]
    box_volume_mm3: float
    in_plane_long_mm: float
    in_plane_short_mm: float
    slice: int
    slices: int
    cut_off: bool
    score: float | None = None
    box_short_zone_mm: Zone | None = None
    in_plane_short_zone_mm: Zone | None = None

    @property
    def long_diameter_mm(self) -> float:
        """Longest side of the minimum-volume bounding box."""
        return self.box_sides_mm[0]

    @property
    def short_diameter_mm(self) -> float:
        """Shortest side of the minimum-volume bounding box."""
        return self.box_sides_mm[2]

    @property
    def volume_ml(self) -> float:
        """Volume in millilitres."""
        return self.volume_mm3 / 1000


def measure_nodes(instances: NDArray[Any], geometry: Geometry) -> list[NodeMeasurement]:
    """Measure every instance of a mask, in the order of their ids.

    Args:
        instances: ids (z, y, x), 0 = background; as of :func:`~nndet_psma.boxes.labels.node_components`, or
            given ones, which are kept even when they are not connected.
        geometry: its grid.

    Raises:
        ValueError: the shapes differ.
        UserError: an id is negative or larger than a million.
    """
    from scipy import ndimage

    if instances.shape != geometry.shape:
        raise ValueError(f"mask {instances.shape} does not fit the grid {geometry.shape}")
    if instances.size and (int(instances.min()) < 0 or int(instances.max()) > MAX_ID):
        raise UserError(
            "node ids that make no sense",
            expected=f"whole numbers from 0 to {MAX_ID}",
            found=f"{int(instances.min())} to {int(instances.max())}",
            remedy="Is it a mask, or an image?",
        )
    ids = instances.astype(np.int32, copy=False)
    found = enumerate(ndimage.find_objects(ids), start=1)
    return [_measure(ids, node, cut, geometry) for node, cut in found if cut is not None]


def _measure(
    ids: NDArray[Any], node: int, cut: tuple[slice, slice, slice], geometry: Geometry
) -> NodeMeasurement:
    mask = ids[cut] == node
    start = np.array([axis.start for axis in cut])
    stop = np.array([axis.stop for axis in cut])
    areas = mask.sum(axis=(1, 2))
    plane, long, short = _largest_plane(mask, areas, geometry.spacing)
    smallest = minimum_box(mask_corners(mask, geometry.spacing), geometry.spacing)
    centre = geometry.to_patient((_centre_of_mass(mask) + start)[None])[0]
    return NodeMeasurement(
        node=node,
        box=(*map(float, start), *map(float, stop)),
        centre_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
        volume_mm3=float(areas.sum() * np.prod(geometry.spacing)),
        box_sides_mm=smallest.sides,
        box_volume_mm3=smallest.volume,
        in_plane_long_mm=long,
        in_plane_short_mm=short,
        slice=int(start[0]) + plane,
        slices=int((areas > 0).sum()),
        cut_off=bool((start == 0).any() or (stop == geometry.shape).any()),
        box_short_zone_mm=box_zone(smallest, geometry.spacing),
        in_plane_short_zone_mm=in_plane_zone(short, geometry.spacing),
    )


def _largest_plane(
    mask: NDArray[np.bool_], areas: NDArray[np.int64], spacing: tuple[float, float, float]
) -> tuple[int, float, float]:
    """Slice of largest area and its axes in mm; of equally large ones that with the longest axes, then the first."""
    best = (-1, 0.0, 0.0)
    for plane in np.flatnonzero(areas == areas.max()).tolist():
        long, short = plane_axes(mask[plane], spacing[1:])
        if (long, short) > best[1:]:
            best = (plane, long, short)
    return best


def _centre_of_mass(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Voxel-edge coordinates (z, y, x)."""
    return np.array([places.mean() + 0.5 for places in np.nonzero(mask)])


def measure_boxes(lesions: Sequence[PredictedLesion], geometry: Geometry) -> list[NodeMeasurement]:
    """What detected boxes tell about the size of the nodes inside them, in their order.

    A box is taken for the tight box of the node, so its sides are the node's extents along the axes of the image: the
    shorter side is too long for a node that lies obliquely. In plane, the largest slice box counts; the volume is that
    of the ellipsoid that touches all faces.
    """
    return [_measure_box(rank, lesion, geometry) for rank, lesion in enumerate(lesions, start=1)]


def _measure_box(rank: int, lesion: PredictedLesion, geometry: Geometry) -> NodeMeasurement:
    box = np.array(lesion.box)
    sides = (box[3:] - box[:3]) * geometry.spacing
    longest, middle, shortest = sorted(map(float, sides), reverse=True)
    slices = np.array([each.box for each in lesion.slices] or [lesion.box])
    sizes = (slices[:, 4:] - slices[:, 1:3]) * geometry.spacing[1:]
    largest = int(np.argmax(sizes.prod(axis=1)))
    centre = lesion.centre_mm
    return NodeMeasurement(
        node=rank,
        box=tuple(map(float, lesion.box)),
        centre_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
        volume_mm3=float(np.pi / 6 * sides.prod()),
        box_sides_mm=(longest, middle, shortest),
        box_volume_mm3=float(sides.prod()),
        in_plane_long_mm=float(sizes[largest].max()),
        in_plane_short_mm=float(sizes[largest].min()),
        slice=int(np.clip(np.floor(slices[largest, [0, 3]].mean()), 0, geometry.shape[0] - 1)),
        slices=max(1, len(lesion.slices)),
        cut_off=bool((box[:3] <= 0).any() or (box[3:] >= geometry.shape).any()),
        score=float(lesion.score),
    )
