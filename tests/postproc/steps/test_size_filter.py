import numpy as np
import pytest
from postproc_cases import slice_boxes

from nndet_psma.boxes.detections import Detections
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.steps.size_filter import in_plane_axes, shortest_sides, size_filter
from nndet_psma.postproc.steps.steps import postprocess_case

SPACING = (3.0, 0.5, 2.0)
# 4 x 4 voxels: 2 x 8 mm; 12 x 4: 6 x 8 mm; 12 x 10: 6 x 20 mm
FLAT, ROUND, LONG = (0, 0, 4, 4), (20, 0, 32, 4), (40, 0, 52, 10)


def boxes():
    found = slice_boxes((0, FLAT, 0.9), (0, ROUND, 0.8), (0, LONG, 0.7))
    return found.with_columns(zone_mm=np.zeros(3), hu_quantiles=np.zeros((3, 10), dtype=np.float32))


def test_axes_in_millimetres():
    long, short = in_plane_axes(boxes(), SPACING)
    assert long.tolist() == [8, 8, 20]
    assert short.tolist() == [2, 6, 6]


def test_lesions_are_measured_in_plane():
    long, short = in_plane_axes(Detections.build([(0, *FLAT[:2], 40, *FLAT[2:])], [0.5]), SPACING)
    assert (long.tolist(), short.tolist()) == ([8], [2])  # the 120 mm along z do not count


def test_lesions_are_also_measured_along_z():
    lesion = Detections.build([(0, *ROUND[:2], 1, *ROUND[2:]), (0, *ROUND[:2], 2, *ROUND[2:])], [0.5, 0.4])
    assert shortest_sides(lesion, SPACING).tolist() == [3, 6]
    assert size_filter(lesion, SPACING, min_extent_mm=4.0).tolist() == [False, True]
    assert shortest_sides(boxes(), SPACING).tolist() == [2, 6, 6]


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({}, [True, True, True]),
        ({"min_size_mm": 8.0}, [True, True, True]),  # a limit belongs to what is kept
        ({"min_size_mm": 8.1}, [False, False, True]),
        ({"max_size_mm": 8.0}, [True, True, False]),
        ({"min_short_axis_mm": 6.0}, [False, True, True]),
        ({"max_size_mm": 10.0, "min_short_axis_mm": 3.0}, [False, True, False]),
        ({"min_extent_mm": 6.0}, [False, True, True]),  # a slice box has no third side
    ],
)
def test_limits(limits, kept):
    assert size_filter(boxes(), SPACING, **limits).tolist() == kept


def test_step_drops_slice_boxes_with_a_reason():
    settings = PostprocSettings(min_short_axis_mm=3.0, max_size_mm=30.0)
    result = postprocess_case({"a": [boxes()]}, settings, spacing=SPACING, record_removed=True)
    assert result.slices.scores.tolist() == [0.8, 0.7]
    assert [(box.step, box.reason) for box in result.removed] == [
        ("size", "8.0 x 2.0 mm in plane, limits: max_size_mm 30, min_short_axis_mm 3")
    ]


def test_behind_the_linking_it_judges_lesions():
    """A node of 3, 6 and 3 mm on its slices passes as a whole, a lone flat box does not."""
    node = slice_boxes(
        (1, (0, 0, 6, 4), 0.5), (2, (0, 0, 12, 4), 0.6), (3, (0, 0, 6, 4), 0.5), (9, FLAT, 0.9)
    )
    node = node.with_columns(zone_mm=np.zeros(4), hu_quantiles=np.zeros((4, 10), dtype=np.float32))
    order = ("WeightedBoxClustering", "NMS", "ScoreThreshold", "WindowBagging", "SliceLinking", "SizeFilter")
    settings = PostprocSettings(min_short_axis_mm=5.0, steps=order, link_iou=0.3)
    result = postprocess_case({"a": [node]}, settings, spacing=SPACING, record_removed=True)
    assert result.slices.scores.tolist() == [0.6, 0.5, 0.5]
    assert result.slices.columns["lesion"].tolist() == [0, 0, 0]
    assert result.lesions.scores.tolist() == [0.6]
    (gone,) = result.removed
    assert (gone.voter, gone.step, gone.slice, gone.score) == ("consensus", "size", 9, 0.9)
    assert gone.reason.startswith("lesion: 8.0 x 2.0 mm in plane")
