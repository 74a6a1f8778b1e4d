"""Detection maps of any lesions: components stay apart, scores stay whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picai_eval.analysis_utils import parse_detection_map

from nndet_psma.artifacts.prediction import PredictedLesion
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.submission.forms import SubmittedCase, axial_axis, voxel_range
from nndet_psma.submission.maps import detection_map, label_map, lesion_voxels

SHAPE = (6, 12, 14)


def _case(*boxes):
    """Scores 0.9, 0.8 ... in the order given."""
    lesions = [
        PredictedLesion(round(0.9 - 0.1 * i, 1), 0, "node", tuple(map(float, box)), (0, 0, 0), (1, 1, 1), [])
        for i, box in enumerate(boxes)
    ]
    return SubmittedCase("x", "ctv", Geometry(SHAPE, (1.0, 1.0, 1.0)), lesions)


def test_overlapping_lesions_by_hand():
    """In a row of x: the better has 2..6, the worse 4..10 keeps one voxel of distance: 7..10."""
    case = _case((0, 0, 2, 1, 1, 6), (0, 0, 4, 1, 1, 10))
    painted, lost = detection_map(case)
    assert painted[0, 0].tolist() == pytest.approx([0, 0] + [0.9] * 4 + [0] + [0.8] * 3 + [0] * 4)
    assert lost == 0
    assert label_map(case)[0, 0].tolist() == [0] * 2 + [1] * 4 + [2] * 4 + [0] * 4


def test_a_lesion_cut_in_two_keeps_its_larger_piece():
    painted, _ = detection_map(_case((0, 0, 4, 1, 1, 6), (0, 0, 0, 1, 1, 14)))
    assert painted[0, 0].tolist() == pytest.approx([0] * 4 + [0.9] * 2 + [0] + [0.8] * 7)


def test_touching_at_a_corner_is_touching():
    painted, _ = detection_map(_case((0, 0, 0, 1, 2, 2), (1, 2, 2, 3, 5, 5)))
    assert painted[1, 2, 2] == 0
    assert len(parse_detection_map(painted)[0]) == 2


def test_a_lesion_inside_a_better_one_is_lost():
    painted, lost = detection_map(_case((0, 0, 0, 4, 6, 6), (1, 1, 1, 2, 3, 3)))
    assert lost == 1
    assert np.unique(painted).tolist() == pytest.approx([0.0, 0.9])


CORNER = st.tuples(*(st.floats(-2, n + 1) for n in SHAPE))
SIDES = st.tuples(*[st.floats(0.1, 6)] * 3)
BOXES = st.lists(st.builds(lambda low, side: (*low, *np.add(low, side)), CORNER, SIDES), max_size=8)


@settings(max_examples=80, deadline=None)
@given(BOXES, st.sampled_from(["box", "ellipsoid"]))
def test_one_component_per_lesion_with_its_score(boxes, shape):
    case = _case(*boxes)
    painted, lost = detection_map(case, shape)
    scores, _ = parse_detection_map(painted)
    assert len(scores) == len(boxes) - lost
    painted_scores = sorted(scores.values(), reverse=True)
    assert set(np.round(painted_scores, 3)) <= {lesion.score for lesion in case.lesions}
    assert len(set(np.round(painted_scores, 3))) == len(scores)
    # every voxel carries the score of a lesion that claims it
    for lesion in case.lesions:
        own = np.isclose(painted, lesion.score)
        box, mask = lesion_voxels(lesion.box, SHAPE, shape)
        claimed = np.zeros(SHAPE, bool)
        claimed[box] = mask
        assert not (own & ~claimed).any()


@settings(max_examples=20, deadline=None)
@given(BOXES)
def test_label_map_gives_a_voxel_to_the_best_lesion_there(boxes):
    case = _case(*boxes)
    painted = label_map(case)
    wanted = np.zeros(SHAPE, int)
    for z, y, x in np.ndindex(*SHAPE):
        for number, lesion in enumerate(case.lesions, start=1):
            (a, b, c), _ = lesion_voxels(lesion.box, SHAPE, "box")
            if a.start <= z < a.stop and b.start <= y < b.stop and c.start <= x < c.stop:
                wanted[z, y, x] = number
                break
    assert np.array_equal(painted, wanted)


def test_voxels_of_a_box_by_hand():
    """Centres at 0.5, 1.5 ...: 0.4..2.5 holds 0.5 and 1.5; 0.6..1.4 none, so the one in the middle; beyond: none."""
    low, high = np.array([0.4, 0.6, -5.0, 1.0]), np.array([2.5, 1.4, -1.0, 3.0])
    first, end = voxel_range(low, high, np.array([9, 9, 9, 2]))
    assert list(zip(first.tolist(), end.tolist(), strict=True)) == [(0, 2), (1, 2), (0, 0), (1, 2)]


def test_ellipsoid_fills_its_box():
    """Volume pi / 6 of the box, within what voxels allow; it touches all six faces."""
    _, mask = lesion_voxels((0, 0, 0, 6, 12, 14), SHAPE, "ellipsoid")
    assert mask.mean() == pytest.approx(np.pi / 6, abs=0.03)
    assert all(mask.any(axis=tuple({0, 1, 2} - {axis})).all() for axis in range(3))


def test_axial_axis():
    assert axial_axis(Geometry(SHAPE, (1.0, 1.0, 1.0))) == 0
    coronal = (1.0, 0, 0, 0, 0, 1.0, 0, -1.0, 0)  # image y runs to the feet
    assert axial_axis(Geometry(SHAPE, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), coronal)) == 1
