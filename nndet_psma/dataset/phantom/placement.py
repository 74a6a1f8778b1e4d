"""Where nodes may lie: stations along the vessels, free fat, and a bounded distance over the CTV's border."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nndet_psma.dataset.phantom.canvas import Array, Canvas, smooth_line
from nndet_psma.dataset.phantom.habitus import Habitus
from nndet_psma.dataset.phantom.nodes import Node
from nndet_psma.dataset.phantom.tissue import VESSELS, Tissue
from nndet_psma.dataset.phantom.vessels import Vessel

OVERHANG_MM = (0.5, 4.5)
"""How far a positive node that crosses the CTV's border lies over it: 1-2 pixels (Xu et al. 2023) of 2 mm."""

OVERHANG_SHARE = 0.08
INSIDE = (0.0, 0.0)
CLEAR_OF_CTV_MM = 8.0
TRIES = 60

PRESACRAL = np.array([[84, 54, 0], [100, 44, 0], [128, 18, 0]], float)
OBTURATOR = np.array([[62, 18, 48], [44, 2, 44], [26, -10, 43]], float)
INGUINAL = np.array([[26, -66, 74], [4, -76, 78]], float)
MESORECTAL = np.array([[44, 66, 0], [66, 62, 8]], float)
MESENTERIC = np.array([[90, -44, 20], [130, -36, 26]], float)

SHARES = {
    "external iliac": 0.3,
    "internal iliac": 0.25,
    "obturator": 0.25,
    "common iliac": 0.12,
    "presacral": 0.08,
}


@dataclass(frozen=True)
class Station:
    """A place nodes lie along.

    Attributes:
        name: with the side, as a report would say it.
        points: ``[N, 3]`` line (z, y, x), mm.
        radius: of the vessel along the line, mm; 0 where there is none.
    """

    name: str
    points: Array
    radius: float


def find_stations(habitus: Habitus, vessels: list[Vessel]) -> dict[str, list[Station]]:
    """Stations of a patient by region: those of the CTV, and "outside" for mimics and inguinal nodes."""
    stations: dict[str, list[Station]] = {name: [] for name in (*SHARES, "outside")}
    heights = {"common iliac": (110, 136), "external iliac": (42, 104), "internal iliac": (62, 102)}
    for vessel in vessels:
        low, high = (h * habitus.scale[0] for h in heights[vessel.territory])
        inside = vessel.points[(vessel.points[:, 0] >= low) & (vessel.points[:, 0] <= high)]
        name = f"{_side(vessel.side)} {vessel.territory}"
        stations[vessel.territory].append(Station(name, inside, float(vessel.radii.mean())))
    for side in (1, -1):
        mirror = np.array(habitus.scale) * np.array([1, 1, side])
        stations["obturator"].append(
            Station(f"{_side(side)} obturator", smooth_line(OBTURATOR * mirror), 1.0)
        )
        stations["outside"].append(Station(f"{_side(side)} inguinal", smooth_line(INGUINAL * mirror), 6.0))
        stations["outside"].append(Station("mesenteric", smooth_line(MESENTERIC * mirror), 1.0))
    scale = np.array(habitus.scale)
    stations["presacral"].append(Station("presacral", smooth_line(PRESACRAL * scale), 0.0))
    stations["outside"].append(Station("mesorectal", smooth_line(MESORECTAL * scale), 1.0))
    return stations


def _side(side: int) -> str:
    return "left" if side > 0 else "right"


class NodeField:
    """Places nodes one after another into free fat.

    Attributes:
        canvas: nodes are drawn into its tissue volume as they are placed.
        outside_mm: ``[z, y, x]`` distance to the CTV, mm, 0 inside.
        index: ``[z, y, x]`` int16, 0 or 1 + position in ``nodes``.
        growth: factor on the size of every node: the same nodes differ between two scans of a patient.
        nodes: placed so far.
    """

    def __init__(self, canvas: Canvas, outside_mm: Array, growth: float = 1.0) -> None:
        self.canvas = canvas
        self.growth = growth
        self.outside_mm = outside_mm
        self.index = np.zeros(canvas.tissue.shape, dtype=np.int16)
        self.nodes: list[Node] = []

    def place(
        self,
        node: Node,
        stations: Sequence[Station],
        limits: tuple[float, float],
        rng: np.random.Generator,
    ) -> bool:
        """Look for a place for a node and draw it there; False when none is found in a bounded number of tries.

        Args:
            node: from :func:`~nndet_psma.dataset.phantom.nodes.sample_node`.
            stations: one is drawn for every try.
            limits: the farthest voxel of its contour lies this far (mm) outside the CTV, at least and at most.
            rng: source of chance.
        """
        grown = node.scaled(self.growth)
        for _ in range(TRIES):
            moved = _beside(grown, stations[int(rng.integers(len(stations)))], rng)
            if self._fits(moved, limits):
                self._settle(moved)
                return True
        return False

    def _fits(self, node: Node, limits: tuple[float, float]) -> bool:
        window, mask = node.contour(self.canvas)
        if not mask.any() or not self._within_field(node):
            return False
        around, margin = node.contour(self.canvas, node.slack_mm + 1.5)
        if self.index[around][margin].any():
            return False
        farthest = float(self.outside_mm[window][mask].max())
        if not limits[0] <= farthest <= limits[1]:
            return False
        tissue = self.canvas.tissue[window][mask]
        allowed = (Tissue.FAT, Tissue.ARTERY, Tissue.VEIN, Tissue.MUSCLE, Tissue.SMALL_VESSEL)
        free = float(np.mean(tissue == Tissue.FAT))
        return free >= 0.8 and bool(np.isin(tissue, allowed).all())

    def _within_field(self, node: Node) -> bool:
        low, high = self.canvas.axes[0][[0, -1]]
        return bool(low <= node.centre_mm[0] <= high)

    def _settle(self, node: Node) -> None:
        self.nodes.append(node)
        window, mask = node.contour(self.canvas)
        drawn = mask & ~np.isin(self.canvas.tissue[window], VESSELS)
        self.index[window][drawn if drawn.any() else mask] = len(self.nodes)
        # the solid itself: smaller than the contour, and vessels keep their place
        window, solid = node.contour(self.canvas, 0.0)
        self.canvas.fill(window, solid, Tissue.NODE, (Tissue.FAT, Tissue.MUSCLE, Tissue.SMALL_VESSEL))


def _beside(node: Node, station: Station, rng: np.random.Generator) -> Node:
    """The node moved next to a random point of a station, its long axis along the vessel wall."""
    anchor = station.points[rng.integers(len(station.points))]
    direction = rng.uniform(0, 2 * np.pi)
    gap = station.radius + node.radii_mm[2] + rng.uniform(-0.3, 3.0)
    if station.radius == 0:
        gap = rng.uniform(0, 22) * abs(np.sin(direction))
    centre = anchor + np.array([rng.normal(0, 3), np.cos(direction) * gap, np.sin(direction) * gap])
    angle = float(direction + np.pi / 2 + rng.normal(0, 0.4))
    position = (float(centre[0]), float(centre[1]), float(centre[2]))
    return replace(node, station=station.name, centre_mm=position, angle=angle)
