"""What a phantom task can be varied by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError

Difficulty = Literal["easy", "medium", "hard"]

SMALLEST_FIELD_MM = (100.0, 260.0, 360.0)
"""Field of view (z, y, x) below which the pelvis would be cut off."""


@dataclass(frozen=True)
class PhantomOptions:
    """Size, difficulty and header variation of a phantom task.

    Attributes:
        size: voxels along (z, y, x).
        spacing: millimetres along (z, y, x).
        difficulty: overlap of positive and benign nodes in size, shape, HU and texture; also the noise.
        positives: mean number of positive nodes in a case that has any.
        noise: standard deviation of the image noise, HU; None takes the one of the difficulty.
        oblique: largest rotation of the header's direction, degrees; the voxels stay as they are.
        flip: flip random axes of header and voxels together, so that the patient stays as it is.
        table: draw a CT table under the patient.

    Raises:
        UserError: a value out of range, or a field of view too small for a pelvis.
    """

    size: tuple[int, int, int] = (36, 144, 192)
    spacing: tuple[float, float, float] = (4.0, 2.0, 2.0)
    difficulty: Difficulty = "medium"
    positives: float = 4.0
    noise: float | None = None
    oblique: float = 0.0
    flip: bool = False
    table: bool = True

    def __post_init__(self) -> None:
        if self.difficulty not in get_args(Difficulty):
            raise UserError(
                f"unknown difficulty '{self.difficulty}'",
                expected=f"one of {', '.join(get_args(Difficulty))}",
            )
        if min(self.size) < 1 or min(self.spacing) <= 0:
            raise UserError(
                "size and spacing must be positive",
                found=f"{self.size} and {self.spacing}",
                remedy="Correct --size or --spacing",
            )
        field = tuple(n * step for n, step in zip(self.size, self.spacing, strict=True))
        if any(have < need for have, need in zip(field, SMALLEST_FIELD_MM, strict=True)):
            raise UserError(
                "size x spacing does not cover a pelvis",
                expected=f"at least {SMALLEST_FIELD_MM} mm along (z, y, x)",
                found=f"{field} mm",
                remedy="Raise --size or --spacing",
            )
        if not 1.0 <= self.positives <= 20.0:
            raise UserError("the mean number of positive nodes is out of range", expected="1 to 20")
        if self.noise is not None and self.noise < 0:
            raise UserError("the noise is negative", found=str(self.noise), remedy="Correct --noise")
        if not 0.0 <= self.oblique <= 45.0:
            raise UserError("the rotation is out of range", expected="0 to 45 degrees")

    @property
    def geometry(self) -> Geometry:
        """The grid before any rotation or flip of the header, centred on the patient origin."""
        half = [(n - 1) / 2 * step for n, step in zip(self.size, self.spacing, strict=True)]
        return Geometry(self.size, self.spacing, origin=(-half[2], -half[1], -half[0]))


@dataclass(frozen=True)
class NodeLook:
    """How one kind of node is distributed.

    Attributes:
        short_axis: median short axis, mm.
        spread: standard deviation of the logarithm of the short axis.
        limits: smallest and largest short axis, mm.
        elongation: range of the ratio long axis / short axis.
        hu: mean and standard deviation over nodes of a node's own mean HU.
        texture: range of the standard deviation of HU inside a node.
        hilum: probability of a fatty hilum.
    """

    short_axis: float
    spread: float
    limits: tuple[float, float]
    elongation: tuple[float, float]
    hu: tuple[float, float]
    texture: tuple[float, float]
    hilum: float


@dataclass(frozen=True)
class DifficultyProfile:
    """Looks of positive and benign nodes and the image noise (HU) at one difficulty."""

    positive: NodeLook
    benign: NodeLook
    noise: float


PROFILES: dict[str, DifficultyProfile] = {
    "easy": DifficultyProfile(
        NodeLook(10.5, 0.20, (7.0, 16.0), (1.0, 1.2), (82.0, 16.0), (2.0, 5.0), 0.0),
        NodeLook(4.8, 0.18, (3.5, 7.0), (1.5, 2.4), (28.0, 12.0), (8.0, 16.0), 0.85),
        8.0,
    ),
    "medium": DifficultyProfile(
        NodeLook(9.2, 0.27, (5.0, 16.0), (1.0, 1.45), (92.0, 23.0), (2.0, 10.0), 0.04),
        NodeLook(6.0, 0.25, (3.5, 10.0), (1.1, 2.0), (48.0, 18.0), (4.0, 14.0), 0.55),
        11.0,
    ),
    "hard": DifficultyProfile(
        NodeLook(7.8, 0.28, (5.0, 15.0), (1.0, 1.7), (64.0, 24.0), (3.0, 12.0), 0.12),
        NodeLook(6.4, 0.27, (3.5, 11.0), (1.05, 2.0), (50.0, 20.0), (4.0, 14.0), 0.4),
        15.0,
    ),
}
