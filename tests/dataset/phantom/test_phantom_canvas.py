"""Solids of the phantom against slow formulas and counts by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.phantom.canvas import BODY_SHIFT_MM, NOMINAL_HEIGHT_MM, Canvas, smooth_line
from nndet_psma.dataset.phantom.ctv import distance_outside
from nndet_psma.dataset.phantom.tissue import Tissue

MIDDLE = np.array([NOMINAL_HEIGHT_MM / 2, BODY_SHIFT_MM, 0.0])


def make_canvas(shape=(7, 21, 21), spacing=(4.0, 2.0, 2.0)) -> Canvas:
    return Canvas(Geometry(shape, spacing))


def test_field_is_centred_on_the_middle_of_the_pelvis():
    canvas = make_canvas()
    assert [axis[len(axis) // 2] for axis in canvas.axes] == pytest.approx(MIDDLE)
    assert np.diff(canvas.axes[0]) == pytest.approx(4.0)


def test_ellipsoid_counted_by_hand():
    # radii 4, 2, 2 mm at spacing 4, 2, 2: the centre and its six neighbours, nothing else
    canvas = make_canvas()
    canvas.ellipsoid(MIDDLE, (4.01, 2.01, 2.01), Tissue.NODE)
    assert np.argwhere(canvas.tissue == Tissue.NODE).tolist() == [
        [2, 10, 10], [3, 9, 10], [3, 10, 9], [3, 10, 10], [3, 10, 11], [3, 11, 10], [4, 10, 10],
    ]  # fmt: skip


def test_fill_keeps_other_tissues():
    canvas = make_canvas()
    canvas.tissue[:] = Tissue.FAT
    canvas.tissue[3, 10, 10] = Tissue.ARTERY
    canvas.ellipsoid(MIDDLE, (3, 2.01, 2.01), Tissue.NODE, over=(Tissue.FAT,))
    assert canvas.tissue[3, 10, 10] == Tissue.ARTERY
    assert (canvas.tissue == Tissue.NODE).sum() == 4


@settings(max_examples=30, deadline=None)
@given(
    ends=st.lists(st.floats(-14, 14), min_size=6, max_size=6),
    radii=st.tuples(st.floats(1, 6), st.floats(1, 6)),
)
def test_tube_is_the_hull_of_shrinking_balls(ends, radii):
    canvas = make_canvas((9, 15, 15), (4.0, 3.0, 3.0))
    points = MIDDLE + np.array(ends).reshape(2, 3)
    canvas.tube(points, np.array(radii), Tissue.VEIN)
    step = points[1] - points[0]
    for index in np.ndindex(canvas.tissue.shape):
        place = np.array([axis[k] for axis, k in zip(canvas.axes, index, strict=True)])
        along = np.clip((place - points[0]) @ step / max(step @ step, 1e-9), 0, 1)
        margin = np.linalg.norm(place - points[0] - along * step) - (radii[0] + along * (radii[1] - radii[0]))
        if abs(margin) > 1e-6:
            assert (canvas.tissue[index] == Tissue.VEIN) == (margin < 0)


@pytest.mark.parametrize("side", [1, -1])
def test_plate_bends_away_from_the_midline(side):
    # from y = 16 to y = -4 at |x| = 10, bent by 6 mm: in the middle (y = 6) it lies at |x| = 16, at the ends at 10
    canvas = make_canvas((3, 41, 41), (4.0, 1.0, 1.0))
    row = [16, 10 * side, -4, 10 * side, 1.0, 6.0]
    canvas.plate(np.array([[0, *row], [144, *row]], float), Tissue.MUSCLE)
    at = {y: canvas.axes[2][canvas.tissue[1, k] == Tissue.MUSCLE] for k, y in enumerate(canvas.axes[1])}
    assert np.mean(at[6.0]) == pytest.approx(16 * side)
    assert np.mean(at[16.0]) == pytest.approx(10 * side, abs=0.6)
    assert np.mean(at[-4.0]) == pytest.approx(10 * side, abs=0.6)


def test_column_follows_height():
    # centre x moves from 0 to 8 mm over 16 mm of height: 4 mm halfway
    canvas = make_canvas((5, 31, 31), (4.0, 1.0, 1.0))
    low, high = MIDDLE[0] - 8, MIDDLE[0] + 8
    canvas.column(np.array([[low, 6, 0, 3.5, 3.5], [high, 6, 8, 3.5, 3.5]]), Tissue.MARROW)
    centres = [canvas.axes[2][(canvas.tissue[k] == Tissue.MARROW).any(axis=0)].mean() for k in range(5)]
    assert centres == pytest.approx([0, 2, 4, 6, 8])


def test_smooth_line_keeps_its_ends():
    points = np.array([[0, 0, 0], [10, 2, 5], [30, 0, 0]], float)
    line = smooth_line(points)
    assert line[0] == pytest.approx(points[0])
    assert line[-1] == pytest.approx(points[-1])
    assert np.linalg.norm(np.diff(line, axis=0), axis=1).max() < 9


def test_distance_outside_in_millimetres():
    region = np.zeros((3, 1, 20), dtype=bool)
    region[1, 0, 3] = True
    distance = distance_outside(region, (4.0, 2.0, 2.0), reach_mm=10)
    assert distance[1, 0, 3] == 0
    assert distance[1, 0, 6] == 6
    assert distance[0, 0, 3] == 4
    assert distance[2, 0, 5] == pytest.approx(np.hypot(4, 4))
    assert np.isinf(distance[1, 0, 19])
    assert np.isinf(distance_outside(np.zeros((2, 2, 2), bool), (1.0, 1.0, 1.0))).all()
