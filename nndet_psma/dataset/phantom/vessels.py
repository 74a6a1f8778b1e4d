"""Iliac arteries and veins that branch, the small vessels and the ureters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nndet_psma.dataset.phantom.canvas import Array, Canvas, smooth_line
from nndet_psma.dataset.phantom.habitus import Habitus
from nndet_psma.dataset.phantom.tissue import Tissue

SOFT = (Tissue.FAT, Tissue.MUSCLE)


@dataclass(frozen=True)
class Vessel:
    """A vessel as a tube.

    Attributes:
        territory: "common iliac", "external iliac" or "internal iliac".
        side: +1 patient's left, -1 right.
        tissue: ARTERY or VEIN.
        points: ``[N, 3]`` centreline (z, y, x), mm, in the frame of :class:`Canvas`.
        radii: ``[N]`` mm.
    """

    territory: str
    side: int
    tissue: Tissue
    points: Array
    radii: Array


# the first point of the external and internal centrelines is the last one of the common: they branch there
ARTERIES: dict[str, tuple[Array, tuple[float, float]]] = {
    "common iliac": (np.array([[190, -6, 6], [148, 0, 17], [128, 6, 28], [108, 10, 40]], float), (6.2, 5.6)),
    "external iliac": (
        np.array(
            [[108, 10, 40], [90, 0, 52], [66, -22, 60], [42, -46, 65], [12, -62, 69], [-40, -60, 74]], float
        ),
        (5.2, 4.6),
    ),
    "internal iliac": (
        np.array([[108, 10, 40], [96, 22, 45], [80, 34, 49], [58, 36, 54]], float),
        (4.4, 2.8),
    ),
}
VEINS: dict[str, tuple[Array, tuple[float, float]]] = {
    "common iliac": (
        np.array([[190, 8, 12], [148, 10, 18], [126, 19, 30], [106, 22, 41]], float),
        (7.0, 6.5),
    ),
    "external iliac": (
        np.array(
            [[106, 22, 41], [88, 10, 50], [64, -12, 55], [40, -38, 56], [12, -56, 58], [-40, -52, 62]], float
        ),
        (6.2, 6.0),
    ),
    "internal iliac": (
        np.array([[106, 22, 41], [95, 32, 46], [78, 43, 50], [60, 46, 56]], float),
        (5.0, 3.2),
    ),
}
OBTURATOR_VESSEL = np.array([[78, 34, 49], [62, 20, 48], [44, 2, 47], [26, -14, 46]], float)
GONADAL_VESSEL = np.array([[190, -14, 48], [120, -22, 50], [80, -42, 58], [50, -62, 62]], float)
URETER = np.array(
    [[190, -8, 36], [125, -2, 34], [104, 4, 32], [78, 24, 38], [56, 18, 30], [46, 4, 18]], float
)


def sample_vessels(habitus: Habitus, rng: np.random.Generator) -> list[Vessel]:
    """Draw the iliac vessels of a patient; the branching points of a side stay joined."""
    vessels = []
    for side in (1, -1):
        for tissue, tree in ((Tissue.ARTERY, ARTERIES), (Tissue.VEIN, VEINS)):
            widen = rng.uniform(0.85, 1.12)
            # one displacement for the whole tree keeps it connected; tortuosity moves only inner points
            shift = rng.normal(0, habitus.jitter, 3)
            for territory, (template, (first, last)) in tree.items():
                points = template * np.array(habitus.scale) + shift
                points[1:-1] += rng.normal(0, 1.5, points[1:-1].shape)
                line = smooth_line(points * np.array([1, 1, side]))
                radii = np.linspace(first, last, len(line)) * widen
                vessels.append(Vessel(territory, side, tissue, line, radii))
    return vessels


def draw_vessels(canvas: Canvas, vessels: list[Vessel]) -> None:
    """Draw veins, then arteries over them: where the two touch, the artery keeps its round cut."""
    for tissue in (Tissue.VEIN, Tissue.ARTERY):
        for vessel in vessels:
            if vessel.tissue == tissue:
                canvas.tube(vessel.points, vessel.radii, tissue, (*SOFT, Tissue.VEIN))


def draw_mimics(canvas: Canvas, habitus: Habitus, rng: np.random.Generator) -> None:
    """Draw what looks like a node in a single slice: ureters, obturator and gonadal vessels."""
    for side in (1, -1):
        for template, radius, tissue in (
            (OBTURATOR_VESSEL, rng.uniform(1.5, 2.4), Tissue.SMALL_VESSEL),
            (GONADAL_VESSEL, rng.uniform(1.5, 2.6), Tissue.SMALL_VESSEL),
            (URETER, rng.uniform(2.0, 3.2), Tissue.URETER),
        ):
            points = habitus.points(template, side, rng)
            points[1:-1] += rng.normal(0, 2.0, points[1:-1].shape)
            line = smooth_line(points)
            canvas.tube(line, np.full(len(line), radius), tissue, (Tissue.FAT,))
    for _ in range(rng.integers(6, 12)):
        _draw_branch(canvas, rng)


def _draw_branch(canvas: Canvas, rng: np.random.Generator) -> None:
    """A small vessel that wanders through the fat of the pelvis."""
    start = rng.uniform((40, -50, -60), (140, 30, 60))
    points = np.cumsum(np.vstack([start, rng.normal(0, 12, (3, 3))]), axis=0)
    line = smooth_line(points)
    canvas.tube(line, np.full(len(line), rng.uniform(1.0, 1.8)), Tissue.SMALL_VESSEL, (Tissue.FAT,))
