"""How often the zone of a short diameter holds the true one, and how wide it is: solids drawn on voxels.

    .venv/bin/python benchmarks/voxel_zone.py [--solids 400] [--json FILE]

Spheres and ellipsoids (middle axis up to 1.6 times, long axis up to 2.2 times the shortest, which is 5 to 12 mm) at
random places and orientations; a voxel belongs to the solid when its centre does. Truth is the shortest diameter of
the solid, and of its axial section through the centre. One core, about one minute; the seed is fixed.
"""

from __future__ import annotations

import os

from measure import ONE_THREAD, table, write_result

os.environ.update(ONE_THREAD)  # before numpy is loaded

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.nodes.measurement import NodeMeasurement, measure_nodes
from nndet_psma.nodes.size_zone import Spacing, Zone

_SPACINGS: tuple[Spacing, ...] = (
    (0.7, 0.7, 0.7),
    (1.0, 1.0, 1.0),
    (2.0, 2.0, 2.0),
    (1.0, 0.5, 0.5),
    (3.0, 0.8, 0.8),
    (3.0, 1.4, 1.4),
    (5.0, 1.0, 1.0),
)


@dataclass(frozen=True)
class Solid:
    """An ellipsoid: semi-axes in mm, shortest first; ``turn`` takes (z, y, x) to them; its centre lies in a voxel."""

    semi: NDArray[np.float64]
    turn: NDArray[np.float64]
    centre: NDArray[np.float64]

    @classmethod
    def draw(
        cls, rng: np.random.Generator, spacing: Spacing, *, sphere: bool, short_mm: float | None = None
    ) -> Solid:
        """A random one; ``short_mm`` fixes the shortest diameter."""
        stretch = np.ones(3) if sphere else np.sort([1.0, rng.uniform(1, 1.6), rng.uniform(1, 2.2)])
        short = rng.uniform(5, 12) if short_mm is None else short_mm
        turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
        return cls(short / 2 * stretch, turn, (rng.random(3) - 0.5) * spacing)

    @property
    def short_mm(self) -> float:
        """Shortest diameter."""
        return float(2 * self.semi[0])

    @property
    def in_plane_short_mm(self) -> float:
        """Shortest diameter of the axial section through the centre, which is the largest one."""
        form = self.turn @ np.diag(self.semi**-2.0) @ self.turn.T
        return float(2 / np.sqrt(np.linalg.eigvalsh(form[1:, 1:])[1]))

    def measured(self, spacing: Spacing) -> NodeMeasurement:
        """Drawn on voxels and measured."""
        half = np.ceil(self.semi[2] / np.asarray(spacing)).astype(int) + 2
        lines = [np.arange(-count, count + 1) * step for count, step in zip(half, spacing, strict=True)]
        points = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1) - self.centre
        mask = (((points @ self.turn) / self.semi) ** 2).sum(axis=-1) <= 1
        return measure_nodes(mask, Geometry(mask.shape, spacing))[0]


@dataclass
class Tally:
    """How solids and zones went together: held, truth below the zone, widths and errors in mm."""

    held: int = 0
    below: int = 0
    width: float = 0.0
    error: float = 0.0

    def add(self, measured: float, zone: Zone | None, truth: float) -> None:
        """Count one solid."""
        if zone is None:
            raise ValueError("a mask has a zone")
        self.held += zone[0] <= truth <= zone[1]
        self.below += truth < zone[0]
        self.width += zone[1] - zone[0]
        self.error += measured - truth

    def cells(self, solids: int) -> list[object]:
        """Coverage, mean width, mean error."""
        return [
            f"{100 * self.held / solids:.1f} %",
            f"{self.width / solids:.1f}",
            f"{self.error / solids:+.2f}",
        ]


def zone_rows(solids: int, rng: np.random.Generator) -> list[list[object]]:
    """One row per voxel size and kind of solid."""
    rows: list[list[object]] = []
    for spacing in _SPACINGS:
        for sphere in (True, False):
            box, plane = Tally(), Tally()
            for _ in range(solids):
                solid = Solid.draw(rng, spacing, sphere=sphere)
                node = solid.measured(spacing)
                box.add(node.short_diameter_mm, node.box_short_zone_mm, solid.short_mm)
                plane.add(node.in_plane_short_mm, node.in_plane_short_zone_mm, solid.in_plane_short_mm)
            name = " x ".join(f"{step:g}" for step in spacing)
            rows.append([name, "sphere" if sphere else "ellipsoid", *box.cells(solids), *plane.cells(solids)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--solids", type=int, default=1000, help="of each row")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    start = time.process_time()
    rows = zone_rows(args.solids, np.random.default_rng(0))
    header = ["voxel, mm", "solid", "box", "zone, mm", "error, mm", "in plane", "zone, mm", "error, mm"]
    print(
        f"share of zones that hold the true short diameter, mean width, mean error; {args.solids} solids of each row"
    )
    print(table(header, rows))
    print(f"{time.process_time() - start:.0f} s of CPU time")
    write_result(args.json, {"solids": args.solids, "rows": rows})


if __name__ == "__main__":
    main()
