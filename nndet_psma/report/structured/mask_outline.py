"""Outlines of a mask along its voxel edges, as closed polygons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Corner = tuple[int, int]


def mask_outlines(plane: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed outlines of the pieces of a mask (y, x), holes filled.

    Returns:
        one ``[K, 2]`` array (y, x) of voxel corners per piece, the first corner again at the end; only corners where
        the outline turns. Pieces that touch at a corner only are separate outlines.
    """
    from scipy.ndimage import binary_fill_holes

    onward = _edges(binary_fill_holes(plane))
    outlines = []
    while onward:
        start = min(onward)
        outlines.append(_turns(_walk(onward, start)))
    return outlines


def _edges(plane: NDArray[np.bool_]) -> dict[Corner, list[Corner]]:
    """Directed voxel edges, the mask on their right: from each corner the corners that follow."""
    padded = np.pad(plane, 1)
    onward: dict[Corner, list[Corner]] = {}

    inside = padded[1:-1, 1:-1]
    sides: list[tuple[NDArray[np.bool_], Corner, Corner]] = [
        (padded[:-2, 1:-1], (0, 0), (0, 1)),  # upper edge, to the right
        (padded[1:-1, 2:], (0, 1), (1, 1)),  # right edge, down
        (padded[2:, 1:-1], (1, 1), (1, 0)),  # lower edge, to the left
        (padded[1:-1, :-2], (1, 0), (0, 0)),  # left edge, up
    ]
    for beyond, start, stop in sides:
        for y, x in np.argwhere(inside & ~beyond).tolist():
            onward.setdefault((y + start[0], x + start[1]), []).append((y + stop[0], x + stop[1]))
    return onward


def _walk(onward: dict[Corner, list[Corner]], start: Corner) -> list[Corner]:
    """Follow the edges from ``start`` until they come back, and take them away.

    Where two pieces meet at a corner the walk turns towards the piece it goes round, which keeps them apart.
    """
    path, heading = [start], (0, 1)
    while True:
        here = path[-1]
        following = onward[here]
        turn = (heading[1], -heading[0])  # to the right: (y, x) with y downwards
        step = (here[0] + turn[0], here[1] + turn[1])
        goal = step if step in following else following[0]
        following.remove(goal)
        if not following:
            del onward[here]
        heading = (goal[0] - here[0], goal[1] - here[1])
        path.append(goal)
        if goal == start:
            return path


def _turns(path: list[Corner]) -> NDArray[np.float64]:
    """The path without corners in the middle of a straight line."""
    points = np.array(path, dtype=np.float64)
    steps = np.diff(points, axis=0)
    bends = (steps != np.roll(steps, 1, axis=0)).any(axis=1)
    kept = points[:-1][bends]
    return np.concatenate([kept, kept[:1]])
