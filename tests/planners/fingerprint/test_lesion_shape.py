"""In-plane diameters: rectangles by hand at any angle, ellipses, single voxels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nndet_psma.planners.fingerprint.lesion_shape import in_plane_shape, plane_axes


def rectangle_axes(a: float, b: float) -> tuple[float, float]:
    """Of a rectangle with a >= b: the diagonal d, and the longest section perpendicular to it.

    The corner beside the diagonal lies h = a b / d from it, with its foot a^2 / d along it. The section through that
    corner goes on to the other side, whose triangle has there the height h b^2 / a^2 (similar triangles).
    """
    d = math.hypot(a, b)
    h = a * b / d
    return d, h * (1 + b**2 / a**2)


def test_one_voxel_has_its_size():
    shape = in_plane_shape(np.ones((1, 1, 1), bool), (3.0, 1.0, 1.0))
    assert shape.long_axis_mm == pytest.approx(math.sqrt(2))
    assert shape.short_axis_mm == pytest.approx(math.sqrt(2))  # the other diagonal
    assert shape.slice_sizes_mm == [(1.0, 1.0)]


@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 8), (20, 5), (1, 9)])
def test_upright_rectangles_are_exact(height, width):
    """Pixels of 2 x 0.5 mm (y, x)."""
    found = plane_axes(np.ones((height, width), bool), (2.0, 0.5))
    sides = sorted((height * 2.0, width * 0.5), reverse=True)
    assert found == pytest.approx(rectangle_axes(*sides))


@settings(deadline=None, max_examples=40)
@given(st.floats(20, 40), st.floats(0.3, 0.95), st.floats(0, math.pi))
@example(40.0, 0.890625, 1.0)  # the direction of the diameter errs by a voxel
def test_turned_rectangles_within_a_voxel(side, ratio, angle):
    """Drawn by voxel centres: every corner of the drawing lies within a voxel of the true one."""
    a, b = side, side * ratio
    y, x = np.mgrid[:70, :70] - 34.5
    along, across = y * math.sin(angle) + x * math.cos(angle), y * math.cos(angle) - x * math.sin(angle)
    long, short = plane_axes((np.abs(along) <= a / 2) & (np.abs(across) <= b / 2), (1.0, 1.0))
    expected = rectangle_axes(a, b)
    assert long == pytest.approx(expected[0], abs=math.sqrt(2))
    # both ends of the section move, and the ends of the diameter, too, which turns the section
    turn = 2 * math.sqrt(2) / expected[0]
    assert short == pytest.approx(expected[1], abs=2 * math.sqrt(2) + turn * expected[1])


def test_an_ellipse_has_the_axes_of_an_ellipse():
    y, x = np.mgrid[:80, :80] - 40.0
    plane = (y / 18) ** 2 + (x / 33) ** 2 <= 1
    assert plane_axes(plane, (0.5, 0.5)) == pytest.approx((33.0, 18.0), abs=0.75)


def test_the_slice_of_the_longest_diameter_counts():
    """Three slices: a thin line of 10, a block of 8 x 7, an empty one and a voxel."""
    mask = np.zeros((4, 12, 12), bool)
    mask[0, 5, 1:11] = True
    mask[1, 2:10, 2:9] = True
    mask[3, 4, 4] = True
    shape = in_plane_shape(mask, (3.0, 1.0, 2.0))
    # the line is 20 mm by 1 mm, the block 8 mm by 14 mm (16.1 mm): the line is longer, and it is thin
    assert (shape.long_axis_mm, shape.short_axis_mm) == pytest.approx(rectangle_axes(20, 1))
    assert shape.slice_sizes_mm == [(1.0, 20.0), (8.0, 14.0), (1.0, 2.0)]


def corners(plane, spacing):
    found = {(y + dy, x + dx) for y, x in np.argwhere(plane) for dy in (0, 1) for dx in (0, 1)}
    return np.array(sorted(found)) * spacing


@settings(deadline=None, max_examples=60)
@given(
    arrays(bool, (3, 6, 7), elements=st.booleans()).filter(lambda m: m.any()),
    st.tuples(st.floats(0.5, 3), st.floats(0.5, 3)),
)
def test_longest_diameter_agrees_with_all_pairs_of_corners(mask, spacing):
    """And the short axis is no longer than the extent of all corners across the diameter."""
    best = 0.0
    for plane in mask:
        if plane.any():
            points = corners(plane, spacing)
            best = max(best, float(np.linalg.norm(points[:, None] - points[None], axis=2).max()))
    shape = in_plane_shape(mask, (1.0, *spacing))
    assert shape.long_axis_mm == pytest.approx(best)
    assert 0 < shape.short_axis_mm <= shape.long_axis_mm + 1e-9


@settings(deadline=None, max_examples=60)
@given(arrays(bool, (7, 7), elements=st.booleans()).filter(lambda m: m.any()))
def test_short_axis_agrees_with_cutting_the_hull(plane):
    """The reference cuts the hull's edges with a line across the diameter through each corner in turn."""
    from scipy.spatial import ConvexHull

    points = corners(plane, (1.0, 1.0))
    hull = points[ConvexHull(points).vertices]
    gaps = hull[:, None] - hull[None]
    lengths = np.hypot(gaps[..., 0], gaps[..., 1])
    expected = 0.0
    for i, j in np.argwhere(lengths >= lengths.max() - 1e-9):
        unit = gaps[i, j] / lengths[i, j]
        normal = np.array([-unit[1], unit[0]])
        for corner in hull:
            level, hits = corner @ unit, []
            for p, q in zip(hull, np.roll(hull, -1, axis=0), strict=True):
                a, b = p @ unit - level, q @ unit - level
                if abs(a) < 1e-9:
                    hits.append(p @ normal)
                if a * b < -1e-12:
                    hits.append((p + (q - p) * a / (a - b)) @ normal)
            expected = max(expected, max(hits) - min(hits))
    assert plane_axes(plane, (1.0, 1.0))[1] == pytest.approx(expected)
