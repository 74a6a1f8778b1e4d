"""Nodes of known status whose status shows in one thing only: what learns it, and what merely seems to.

A made-up body (skin, fat, muscle, bone, vessels) with nodes at four stations whose surroundings look different. What
the status shows in is the ``signal``: HU texture inside the node, its station, or its size; all else is drawn alike for
both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.phantom.schedule import CaseSpec, Split, plan_case

Signal = Literal["texture", "station", "size"]
Point = tuple[float, float, float]

NEGATIVE, POSITIVE = 0, 1
POSITIVE_SHARE = 0.35
STATION_SHARES = {"inguinal": 0.05, "axillary": 0.05, "iliac": 0.95, "retroperitoneal": 0.95}
"""Share of positive nodes where the station tells the status; in Hartenstein et al. 2020 9 % of inguinal and 94 % of
retroperitoneal nodes of the balanced set were positive."""

COLUMNS: dict[str, tuple[tuple[float, float], ...]] = {
    "inguinal": ((-56, 30), (-56, -30)),
    "axillary": ((-4, 82), (-4, -82)),
    "iliac": ((6, 30), (6, -30)),
    "retroperitoneal": ((18, 9), (18, -9)),
}
"""Where the nodes of a station lie: (y, x) in mm from the middle of the body, front negative."""

HEIGHTS = (-27.0, -9.0, 9.0, 27.0)
"""Middles of the nodes of a column along z, mm: so far apart that nodes never touch."""

BODY_MM = (76.0, 100.0)
SKIN_MM = 3.0
CORE = 0.5 ** (1 / 3)
"""Radius of the core of a node as a share of its own: core and rim have the same volume, so histograms tell nothing."""

SMALL_MM, LARGE_MM, ANY_MM = (4.0, 5.5), (6.5, 8.0), (5.0, 7.5)
"""Ranges of radii: of negative and positive nodes where size tells the status, and of all where it does not."""

NODE_HU, CONTRAST_HU = 60.0, 28.0


@dataclass(frozen=True)
class NodeStatusOptions:
    """Size of the volumes and what tells the status.

    Attributes:
        signal: "texture" (dark core and bright rim, or the reverse), "station", or "size".
        size: voxels along (z, y, x).
        spacing: mm along (z, y, x).
        noise: standard deviation of the image noise, HU.
        nodes: of a case.

    Raises:
        UserError: a value out of range.
    """

    signal: Signal = "texture"
    size: tuple[int, int, int] = (40, 112, 144)
    spacing: tuple[float, float, float] = (2.0, 1.5, 1.5)
    noise: float = 12.0
    nodes: int = 8

    def __post_init__(self) -> None:
        if self.signal not in get_args(Signal):
            raise UserError(
                f"unknown signal '{self.signal}'", expected=f"one of {', '.join(get_args(Signal))}"
            )
        if min(self.size) < 1 or min(self.spacing) <= 0:
            raise UserError(
                "size and spacing must be positive",
                found=f"{self.size} and {self.spacing}",
                remedy="Correct --size or --spacing",
            )
        if self.noise < 0:
            raise UserError("the noise is negative", found=str(self.noise), remedy="Correct --noise")
        if not 1 <= self.nodes <= len(_places()):
            raise UserError("the number of nodes is out of range", expected=f"1 to {len(_places())}")


@dataclass(frozen=True)
class StatusNode:
    """One node: its station, status (0 or 1), middle (z, y, x) and radius in mm, mean HU of core and of rim."""

    station: str
    status: int
    centre: Point
    radius: float
    core_hu: float
    rim_hu: float


@dataclass(frozen=True)
class NodeStatusCase:
    """A case as it is written.

    Attributes:
        spec: its place in the task.
        geometry: of the volumes.
        images: CT ``[z, y, x]`` int16, HU.
        labels: ``[z, y, x]`` uint8 numbers of the nodes.
        nodes: by number.
    """

    spec: CaseSpec
    geometry: Geometry
    images: tuple[NDArray[np.int16]]
    labels: NDArray[np.uint8]
    nodes: dict[int, StatusNode]

    @property
    def classes(self) -> dict[int, int]:
        """Status by number."""
        return {number: node.status for number, node in self.nodes.items()}

    def notes(self) -> dict[str, Any]:
        """What stands beside the classes in the JSON of the case."""
        return {"stations": {str(number): node.station for number, node in self.nodes.items()}}


def plan_node_status(seed: int, split: Split, index: int) -> CaseSpec:
    """The specification of one case."""
    return plan_case(seed, split, index, stem="nodes")


def draw_node_status(spec: CaseSpec, options: NodeStatusOptions) -> NodeStatusCase:
    """Draw a case; the same specification and options give the same voxels."""
    rng = spec.chance("scan")
    half = [(n - 1) / 2 * step for n, step in zip(options.size, options.spacing, strict=True)]
    geometry = Geometry(options.size, options.spacing, (-half[2], -half[1], -half[0]))
    grids = np.meshgrid(
        *(np.arange(n) * step - middle for n, step, middle in zip(options.size, options.spacing, half, strict=True)),
        indexing="ij", sparse=True,
    )  # fmt: skip
    image = _body(grids, options.size)
    labels = np.zeros(options.size, dtype=np.uint8)
    nodes: dict[int, StatusNode] = {}
    for node in _sample_nodes(rng, options):
        distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(grids, node.centre, strict=True)))
        inside = distance <= node.radius
        if inside.any():
            nodes[len(nodes) + 1] = node
            labels[inside] = len(nodes)
            image[inside] = np.where(distance[inside] <= CORE * node.radius, node.core_hu, node.rim_hu)
    noise = ndimage.gaussian_filter(rng.standard_normal(options.size, dtype=np.float32), (0, 0.5, 0.5))
    image += options.noise * noise / noise.std()
    hu = np.clip(np.rint(image), -1024, 3071).astype(np.int16)
    return NodeStatusCase(spec, geometry, (hu,), labels, nodes)


def _places() -> list[tuple[str, Point]]:
    return [(s, (z, y, x)) for s, columns in COLUMNS.items() for y, x in columns for z in HEIGHTS]


def _sample_nodes(rng: np.random.Generator, options: NodeStatusOptions) -> Iterator[StatusNode]:
    places = _places()
    for index in rng.permutation(len(places))[: options.nodes]:
        station, place = places[int(index)]
        by_station = options.signal == "station"
        status = int(rng.random() < (STATION_SHARES[station] if by_station else POSITIVE_SHARE))
        z, y, x = (float(value) for value in np.array(place) + rng.uniform(-1, 1, 3))
        sizes = ((SMALL_MM, LARGE_MM)[status]) if options.signal == "size" else ANY_MM
        radius, mean = float(rng.uniform(*sizes)), NODE_HU + float(rng.normal(0, 6))
        contrast = 0.0
        if options.signal == "texture":
            contrast = -CONTRAST_HU if status == POSITIVE else CONTRAST_HU
        yield StatusNode(station, status, (z, y, x), radius, mean + contrast, mean - contrast)


def _body(grids: Sequence[NDArray[np.float64]], size: tuple[int, int, int]) -> NDArray[np.float32]:
    """HU without nodes: what lies round a node tells its station."""
    _, y, x = grids
    outer, inner = ((y / (b - s)) ** 2 + (x / (a - s)) ** 2 for b, a in [BODY_MM] for s in (0.0, SKIN_MM))
    plane = np.full(np.broadcast_shapes(y.shape, x.shape), -1000.0, dtype=np.float32)
    plane[outer <= 1] = 20
    plane[inner <= 1] = -100
    for (row, column), radius, hu in (
        ((46.0, 0.0), 19.0, 420.0),  # bone behind the retroperitoneal nodes
        ((6.0, 46.0), 6.0, 190.0), ((6.0, -46.0), 6.0, 190.0),  # vessels beside the iliac nodes
        ((18.0, 78.0), 11.0, 55.0), ((18.0, -78.0), 11.0, 55.0),  # muscle behind the axillary nodes
    ):  # fmt: skip
        plane[(y - row) ** 2 + (x - column) ** 2 <= radius**2] = hu
    return np.broadcast_to(plane, size).copy()
