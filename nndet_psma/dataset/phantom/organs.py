"""Bladder, prostate or its bed, rectum and bowel loops."""

from __future__ import annotations

import numpy as np

from nndet_psma.dataset.phantom.canvas import Array, Canvas, Mask, smooth_line
from nndet_psma.dataset.phantom.habitus import Habitus
from nndet_psma.dataset.phantom.tissue import Tissue

RECTUM = np.array([[-40, 30, 0], [10, 32, 0], [28, 44, 0], [60, 54, 0], [84, 42, 4], [100, 26, 12]], float)


def draw_pelvic_organs(
    canvas: Canvas, habitus: Habitus, patient: np.random.Generator, scan: np.random.Generator
) -> None:
    """Draw bladder, prostate (or bed with clips) and rectum; filling changes between scans, anatomy does not."""
    _draw_prostate(canvas, habitus, patient)
    _draw_bladder(canvas, habitus, scan)
    _draw_rectum(canvas, habitus, patient, scan)


def _draw_prostate(canvas: Canvas, habitus: Habitus, rng: np.random.Generator) -> None:
    over = (Tissue.FAT, Tissue.MUSCLE)
    if not habitus.prostatectomy:
        size = rng.uniform(0.85, 1.25)
        canvas.ellipsoid((17, 2, 0), (17 * size, 16 * size, 21 * size), Tissue.PROSTATE, over)
        canvas.ellipsoid((42, 22, 0), (6, 6, 25), Tissue.PROSTATE, over)
        return
    canvas.ellipsoid((18, 6, 0), (14, 8, 13), Tissue.PROSTATE_BED, over)
    for _ in range(rng.integers(2, 7)):
        clip = rng.normal((22, 8, 0), (9, 6, 18))
        canvas.ellipsoid(clip, (2.2, 1.3, 1.3), Tissue.CLIP, (*over, Tissue.PROSTATE_BED))


def _draw_bladder(canvas: Canvas, habitus: Habitus, rng: np.random.Generator) -> None:
    fullness = rng.uniform(0.75, 1.1)
    radii = np.array([25.0, 24.0, 36.0]) * fullness
    neck = 22.0 if habitus.prostatectomy else 34.0  # the bladder comes down into the empty bed
    centre = np.array([neck + radii[0], -26.0, rng.normal(0, 2)])
    over = (Tissue.FAT, Tissue.MUSCLE, Tissue.PROSTATE)
    canvas.ellipsoid(centre, radii, Tissue.BLADDER, over)
    if rng.random() < 0.6:  # contrast is heavier than urine and lies at the back
        level = centre[1] + radii[1] * rng.uniform(0.1, 0.6)
        window = canvas.window(centre - radii, centre + radii)
        _, y, _ = canvas.grids(window)
        below = np.broadcast_to(y > level, canvas.tissue[window].shape)
        canvas.fill(window, below, Tissue.BLADDER_CONTRAST, (Tissue.BLADDER,))


def _draw_rectum(
    canvas: Canvas, habitus: Habitus, patient: np.random.Generator, scan: np.random.Generator
) -> None:
    line = smooth_line(habitus.points(RECTUM, 1, patient))
    radii = np.full(len(line), scan.uniform(9, 13)) + scan.normal(0, 0.8, len(line))
    over = (Tissue.FAT, Tissue.MUSCLE)
    canvas.tube(line, radii, Tissue.RECTUM_WALL, over)
    canvas.tube(line, radii - 3.5, Tissue.STOOL, (Tissue.RECTUM_WALL,))
    gas = scan.integers(0, len(line) - 3)
    pocket = line[gas : gas + 3] + np.array([0, -2.0, 0])
    canvas.tube(pocket, np.full(3, scan.uniform(3, 6)), Tissue.GAS, (Tissue.STOOL,))


def draw_bowel(canvas: Canvas, avoid: Mask, rng: np.random.Generator) -> None:
    """Draw loops of small bowel and sigmoid into the fat of the abdominal cavity.

    Args:
        canvas: already holds everything else.
        avoid: ``[z, y, x]`` voxels that stay as they are (nodes and their surroundings).
        rng: of the scan: bowel moves.
    """
    protected = canvas.tissue[avoid].copy()
    for _ in range(rng.integers(11, 16)):
        _draw_loop(canvas, rng)
    canvas.tissue[avoid] = protected


def _draw_loop(canvas: Canvas, rng: np.random.Generator) -> None:
    start = rng.uniform((74, -58, -78), (150, -2, 78))
    heading = rng.normal(0, 1, 3) * (0.6, 0.5, 1.0)
    steps = rng.normal(0, 8, (5, 3)) + heading * 12
    corners = np.clip(np.cumsum(np.vstack([start, steps]), axis=0), (70, -62, -92), (175, 6, 92))
    line = smooth_line(corners + rng.normal(0, 0.01, corners.shape))
    radius = rng.uniform(7.5, 13.0)
    _fill_loop(canvas, line, radius, rng)


def _fill_loop(canvas: Canvas, line: Array, radius: float, rng: np.random.Generator) -> None:
    """Wall, then content: contrast, collapsed (soft, looks like a node), or gas over fluid."""
    radii = np.full(len(line), radius)
    content = rng.choice([Tissue.BOWEL_CONTRAST, Tissue.BOWEL_SOFT, Tissue.STOOL], p=[0.5, 0.3, 0.2])
    level = float(np.mean(line[:, 1])) - radius * rng.uniform(0.0, 0.6) if rng.random() < 0.45 else -np.inf
    canvas.tube(line, radii, Tissue.BOWEL_WALL, (Tissue.FAT,))
    for window, mask in canvas.tube_masks(line, radii - 2.2):
        _, y, _ = canvas.grids(window)
        canvas.fill(window, mask & (y >= level), Tissue(content), (Tissue.BOWEL_WALL,))
        canvas.fill(window, mask & (y < level), Tissue.GAS, (Tissue.BOWEL_WALL, Tissue(content)))
