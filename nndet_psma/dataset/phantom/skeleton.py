"""Body outline, muscles and bones of the template pelvis.

The tables are in template millimetres (frame of :class:`Canvas`); x is lateral, both sides are drawn from one table.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from nndet_psma.dataset.phantom.canvas import Array, Canvas, Mask
from nndet_psma.dataset.phantom.habitus import Habitus
from nndet_psma.dataset.phantom.tissue import Tissue

SOFT = (Tissue.FAT, Tissue.MUSCLE)

# z, centre y, centre x, radius y, radius x
MUSCLE_COLUMNS: dict[str, Array] = {
    "psoas": np.array(
        [
            [-40, -38, 90, 13, 16],
            [20, -42, 84, 13, 17],
            [55, -38, 80, 14, 18],
            [85, -16, 76, 16, 18],
            [115, 2, 60, 19, 16],
            [190, 12, 47, 21, 16],
        ],
        float,
    ),
    "gluteus maximus": np.array(
        [
            [-40, 72, 70, 26, 50],
            [20, 78, 72, 25, 52],
            [60, 82, 74, 22, 50],
            [100, 84, 74, 15, 44],
            [145, 86, 70, 6, 26],
        ],
        float,
    ),
    "abductors": np.array([[-40, 0, 132, 22, 8], [20, 0, 133, 28, 9], [70, 4, 126, 38, 13]], float),
    "tensor": np.array([[-40, -44, 118, 18, 15], [30, -46, 116, 15, 14], [75, -44, 112, 9, 10]], float),
    "pectineus": np.array([[-40, -46, 50, 13, 18], [14, -48, 44, 8, 14]], float),
    "rectus": np.array([[5, -74, 22, 6, 18], [60, -76, 27, 7, 24], [190, -77, 32, 7, 27]], float),
    "erector spinae": np.array([[90, 82, 14, 5, 10], [120, 80, 24, 9, 20], [190, 76, 30, 14, 24]], float),
}

# z, first end y, x, second end y, x, half thickness, bend away from the midline
MUSCLE_PLATES: dict[str, Array] = {
    "iliacus": np.array(
        [[72, 8, 74, -18, 86, 5, 0], [95, 30, 72, -24, 96, 8, 4], [150, 34, 74, -14, 106, 7, 6]], float
    ),
    "gluteus medius": np.array(
        [[62, 26, 102, -14, 118, 11, 2], [95, 60, 86, -16, 126, 12, 6], [150, 66, 84, -12, 134, 7, 8]], float
    ),
    "obturator internus": np.array(
        [[-10, 26, 48, -24, 52, 6, 0], [38, 26, 51, -18, 55, 5, 0], [56, 22, 58, -12, 60, 3, 0]], float
    ),
    "piriformis": np.array([[62, 66, 30, 44, 84, 8, 0], [88, 62, 46, 46, 76, 5, 0]], float),
    "obliques": np.array(
        [[55, -44, 112, -75, 56, 3, 3], [100, -32, 120, -74, 60, 6, 6], [190, -10, 130, -72, 64, 8, 9]], float
    ),
    "levator ani": np.array(
        [[-30, 44, 10, -14, 26, 2.5, 3], [20, 46, 16, -12, 36, 2.5, 4], [40, 46, 30, -8, 46, 2, 2]], float
    ),
}

ILIAC_WING = np.array(
    [
        [58, 22, 80, -22, 96, 11, 0],
        [70, 34, 78, -26, 98, 9, 1],
        [88, 50, 70, -28, 104, 6.5, 4],
        [112, 60, 60, -28, 114, 6, 7],
        [190, 60, 62, -14, 124, 5, 8],
    ],
    float,
)
ACETABULAR_ROOF = np.array([[40, 0, 88, 27, 22], [54, 0, 88, 25, 18], [66, 0, 86, 18, 12]], float)
ISCHIUM = np.array([[-40, 34, 58, 13, 12], [5, 32, 62, 13, 11], [45, 26, 74, 12, 10]], float)
SACRUM = np.array(
    [
        [40, 74, 0, 4, 6],
        [58, 74, 0, 7, 14],
        [75, 71, 0, 10, 27],
        [95, 65, 0, 14, 42],
        [115, 54, 0, 19, 52],
        [132, 42, 0, 21, 46],
        [146, 32, 0, 20, 27],
        [190, 28, 0, 19, 26],
    ],
    float,
)
FEMORAL_HEAD = np.array([22.0, -2.0, 88.0])
PUBIC_RAMUS = np.array([[24, -22, 68], [14, -38, 42], [4, -44, 11], [-12, -40, 10]], float)
FEMUR = np.array([[22, -2, 88], [8, 4, 112], [-8, 8, 124], [-40, 8, 124]], float)
# centre of the outline and the bulk inside the fat: z, centre y, x, half depth, half width
OUTLINE = np.array(
    [[-60, 12, 0, 92, 146], [30, 12, 0, 95, 148], [80, 10, 0, 94, 146], [200, 8, 0, 92, 140]], float
)


def draw_body(canvas: Canvas, habitus: Habitus, rng: np.random.Generator, *, table: bool) -> None:
    """Draw table, skin, fat, muscles and bones; every later structure lies inside."""
    _draw_outline(canvas, habitus, table=table)
    for side in (1, -1):
        for rows in MUSCLE_COLUMNS.values():
            canvas.column(habitus.rows(rows, side, rng), Tissue.MUSCLE, (Tissue.FAT,))
        for rows in MUSCLE_PLATES.values():
            canvas.plate(habitus.plate_rows(rows, side), Tissue.MUSCLE, (Tissue.FAT,))
    canvas.column(habitus.rows(SACRUM, 1, rng), Tissue.MARROW, SOFT)
    for side in (1, -1):
        _draw_hemipelvis(canvas, habitus, side, rng)
    _harden_cortex(canvas)


def _draw_outline(canvas: Canvas, habitus: Habitus, *, table: bool) -> None:
    z, y, x = canvas.grids((slice(None), slice(None), slice(None)))
    front, back, beside = habitus.fat
    rows = OUTLINE * np.array([habitus.scale[0], habitus.scale[1], 1, habitus.scale[1], habitus.scale[2]])
    centre, depth, width = (np.interp(z, rows[:, 0], rows[:, k]) for k in (1, 3, 4))
    centre = centre + (back - front) / 2
    depth = depth + (back + front) / 2
    # a superellipse: a body lying on a table is flatter than an ellipse
    distance = np.abs((y - centre) / depth) ** 2.4 + np.abs(x / (width + beside)) ** 2.4
    if table:
        canvas.fill(
            (slice(None),) * 3,
            np.broadcast_to(_table(y, x, centre, depth), canvas.tissue.shape),
            Tissue.TABLE,
        )
    canvas.tissue[distance <= 1] = Tissue.SKIN
    canvas.tissue[distance <= 0.965] = Tissue.FAT


def _table(y: Array, x: Array, centre: Array, depth: Array) -> Mask:
    top = float((centre + depth).max()) - 1.0 - (x / 170.0) ** 2 * 9.0
    board = (np.abs(x) < 165) & (y > top) & (y <= top + 11)
    core = (np.abs(x) < 161) & (y > top + 4) & (y <= top + 7)
    return board & ~core


def _draw_hemipelvis(canvas: Canvas, habitus: Habitus, side: int, rng: np.random.Generator) -> None:
    canvas.plate(habitus.plate_rows(ILIAC_WING, side), Tissue.MARROW, SOFT)
    canvas.column(habitus.rows(ACETABULAR_ROOF, side, rng), Tissue.MARROW, SOFT)
    canvas.column(habitus.rows(ISCHIUM, side, rng), Tissue.MARROW, SOFT)
    ramus = habitus.points(PUBIC_RAMUS, side, rng)
    canvas.tube(ramus, np.array([9.0, 7.0, 8.0, 8.0]), Tissue.MARROW, SOFT)
    head = FEMORAL_HEAD * np.array(habitus.scale) * np.array([1, 1, side])
    _draw_socket(canvas, head, side)
    femur = FEMUR * np.array(habitus.scale) * np.array([1, 1, side])
    canvas.tube(femur, np.array([14.0, 13.0, 16.0, 15.0]), Tissue.MARROW, (*SOFT, Tissue.CARTILAGE))


def _draw_socket(canvas: Canvas, head: Array, side: int) -> None:
    """The cup of the acetabulum covers the medial half of the femoral head; the joint space lies between."""
    window = canvas.window(head - 31, head + 31)
    z, y, x = canvas.grids(window)
    radius = np.sqrt((z - head[0]) ** 2 + (y - head[1]) ** 2 + (x - head[2]) ** 2)
    medial = (x - head[2]) * side < 6 + (z - head[0]) * 0.5
    canvas.fill(window, (radius <= 30.5) & medial, Tissue.MARROW)
    canvas.fill(window, radius <= 26, Tissue.CARTILAGE)
    canvas.fill(window, radius <= 23, Tissue.MARROW)


def _harden_cortex(canvas: Canvas) -> None:
    """The outermost voxels of every bone become cortex, in the axial plane only: slices are thicker than cortex."""
    bone = canvas.tissue == Tissue.MARROW
    plane = ndimage.generate_binary_structure(2, 1)[None]
    canvas.tissue[bone & ~ndimage.binary_erosion(bone, plane, border_value=1)] = Tissue.CORTEX
