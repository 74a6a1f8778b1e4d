import json

import numpy as np
import pytest

from nndet_psma.boxes.detections import Detections
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import from_plain, to_plain
from nndet_psma.evaluation.detection.record import (
    DEFAULT_IOUS,
    CaseRecord,
    Truth,
    build_record,
    iou_key,
    truth_from_instances,
)


@pytest.fixture
def mask():
    """Lesion 1: voxels z 1..2, y 2..3, x 4, but on slice 2 only y 3. Lesion 3: the single voxel (4, 0, 0)."""
    instances = np.zeros((6, 5, 7), dtype=np.int16)
    instances[1, 2:4, 4] = 1
    instances[2, 3, 4] = 1
    instances[4, 0, 0] = 3
    return instances


@pytest.fixture
def truth(mask):
    return truth_from_instances(mask, {1: 0, 3: 1}, (3.0, 0.5, 0.5), short_axes_mm={1: 0.5, 3: 0.4})


def test_truth_of_a_mask(truth):
    assert truth.labels.tolist() == [0, 1]
    assert truth.boxes.tolist() == [[1, 2, 4, 3, 4, 5], [4, 0, 0, 5, 1, 1]]
    assert truth.slice_indices.tolist() == [1, 2, 4]
    assert truth.slice_lesions.tolist() == [0, 0, 1]
    assert truth.slice_boxes.tolist() == [[2, 4, 4, 5], [3, 4, 4, 5], [0, 0, 1, 1]]
    assert truth.num_slices == 6
    assert truth.volumes_mm3 == [3 * 0.75, 0.75]  # three voxels and one of 3 x 0.5 x 0.5 mm
    assert truth.short_axes_mm == [0.5, 0.4]


def test_short_axes_are_measured_when_they_are_not_given(mask):
    # lesion 1 on slice 1: 1.0 x 0.5 mm; its diagonals are the longest diameters, and a section at right angles to one,
    # from long side to long side, is 0.5 mm wide over 0.25 mm: sqrt(0.3125); lesion 3: a voxel, diagonal sqrt(0.5)
    truth = truth_from_instances(mask, {1: 0, 3: 1}, (3.0, 0.5, 0.5))
    assert truth.short_axes_mm == pytest.approx([0.3125**0.5, 0.5**0.5])


def test_distance_to_the_ctv_and_stations(mask):
    # CTV: voxels y >= 3. Lesion 1 reaches out by its voxel (1, 2, 4), one step of 0.5 mm; lesion 3 lies at y 0: 1.5 mm
    ctv = np.zeros(mask.shape, dtype=np.uint8)
    ctv[:, 3:] = 1
    truth = truth_from_instances(mask, {1: 0, 3: 1}, (3.0, 0.5, 0.5), ctv=ctv, stations={3: "presacral"})
    assert truth.outside_ctv_mm == pytest.approx([0.5, 1.5])
    assert truth.stations == [None, "presacral"]
    record = build_record("case", "patient", truth, Detections.empty())
    assert [lesion.outside_ctv_mm for lesion in record.lesions] == pytest.approx([0.5, 1.5])
    assert record.lesions[1].station == "presacral"


def test_an_empty_ctv_is_none(mask):
    truth = truth_from_instances(mask, {1: 0, 3: 1}, (3.0, 0.5, 0.5), ctv=np.zeros(mask.shape))
    assert truth.outside_ctv_mm is None


def test_further_hit_rules_are_matched_too():
    # a lesion of 4 x 4 x 4 voxels; a box of 2 voxels inside: IoU 8/64; centres sqrt(3) voxels apart
    truth = Truth(np.array([0]), np.array([[0.0, 0, 0, 4, 4, 4]]), spacing=(3.0, 3.0, 3.0))
    record = build_record("c", "p", truth, Detections.build([[0, 0, 0, 2, 2, 2]], [0.9]))
    assert record.claims_by("0.10") == (0,)
    assert record.claims_by("0.15") == (-1,)
    assert record.claims_by("overlap_0.10") == record.claims_by("centre") == (0,)
    assert record.claims_by("distance_5mm") == (-1,)  # sqrt(3) * 3 mm = 5.2 mm
    with pytest.raises(ValueError, match="not matched at distance_4mm"):
        record.claims_by("distance_4mm")


def test_without_spacing_there_are_no_millimetres():
    truth = Truth(np.array([0]), np.array([[0.0, 0, 0, 4, 4, 4]]))
    assert "distance_5mm" not in build_record("c", "p", truth, Detections.empty()).matches


def test_truth_skips_slices_between_the_pieces_of_a_lesion():
    instances = np.zeros((4, 2, 2), dtype=np.uint8)
    instances[0, 0, 0] = instances[3, 1, 1] = 1
    assert truth_from_instances(instances, {1: 0}, (1.0, 1.0, 1.0)).slice_indices.tolist() == [0, 3]


def test_truth_of_an_empty_mask():
    truth = truth_from_instances(np.zeros((3, 2, 2), dtype=int), {}, (1.0, 1.0, 1.0))
    assert truth.boxes.shape == (0, 6)
    assert truth.slice_boxes.shape == (0, 4)
    assert truth.num_slices == 3


@pytest.mark.parametrize("classes", [{1: 0}, {1: 0, 3: 0, 7: 0}])
def test_mask_and_class_table_must_name_the_same_instances(mask, classes):
    with pytest.raises(UserError, match=r"found ids \[1, 3\] in the mask"):
        truth_from_instances(mask, classes, (1.0, 1.0, 1.0))


def test_lesions_and_matches(truth):
    # IoU with lesion 0 (4 voxels of box): exact 1; 2/4 for its upper half; 0 for a miss
    boxes = [[1, 2, 4, 2, 4, 5], [0, 0, 0, 1, 1, 1], [1, 2, 4, 3, 4, 5]]
    record = build_record("case", "patient", truth, Detections.build(boxes, [0.2, 0.9, 0.5]))
    assert [prediction.score for prediction in record.predictions] == [0.9, 0.5, 0.2]
    assert record.predictions[1].box == (1, 2, 4, 3, 4, 5)
    ious = {"0.10", "0.15", "0.20", "0.25", "0.30", "0.35", "0.40", "0.45", "0.50"}
    assert set(record.matches) == ious | {"overlap_0.10", "distance_5mm", "centre"}
    assert record.claims(0.5) == (-1, 0, -1)
    assert record.lesions[0].extents_mm == (6.0, 1.0, 0.5)
    assert record.lesions[1].short_axis_mm == 0.4
    assert record.slices is None


def test_classes_of_3d_boxes_must_agree(truth):
    detections = Detections.build([truth.boxes[0], truth.boxes[1]], [0.9, 0.8], [1, 1])
    assert build_record("case", "patient", truth, detections).claims(0.1) == (-1, 1)


def test_iou_of_three_twentieths_counts_as_0_15():
    # 3 voxels of 20; numpy's linspace would give 0.15000000000000002 as the threshold
    truth = Truth(np.array([0]), np.array([[0.0, 0, 0, 1, 1, 3]]))
    record = build_record(
        "case",
        "patient",
        truth,
        Detections.build([[0, 0, 0, 1, 1, 20]], [0.5]),
        ious=np.linspace(0.1, 0.5, 9),
    )
    assert record.claims(0.15) == (0,)
    assert record.claims(0.20) == (-1,)


def test_slice_hits_need_slice_class_and_overlap(truth):
    hit = [2, 4, 4, 5]
    detections = Detections.build(
        [hit, hit, hit, [2, 4, 4, 6], [0, 0, 1, 1]],
        [0.9, 0.8, 0.7, 0.6, 0.5],
        [0, 1, 0, 0, 1],
        dim=2,
        slice=[1, 1, 3, 1, 4],
    )
    record = build_record("case", "patient", truth, Detections.empty(), detections, slice_iou=0.6)
    # right; wrong class; wrong slice; IoU 2/4 below 0.6; the other lesion
    assert [prediction.hits for prediction in record.slices.predictions] == [(0,), (), (), (), (1,)]
    assert [(item.slice_index, item.lesion) for item in record.slices.truth] == [(1, 0), (2, 0), (4, 1)]
    assert record.slices.num_slices == 6


def test_a_slice_box_may_hit_two_lesions_and_equal_iou_counts():
    truth = Truth(
        np.array([0, 0]),
        np.array([[0.0, 0, 0, 1, 1, 1], [0, 0, 2, 1, 1, 3]]),
        np.array([0, 0]),
        np.array([0, 1]),
        np.array([[0.0, 0, 1, 1], [0, 2, 1, 3]]),
        1,
    )
    wide = Detections.build([[0, 0, 1, 10]], [0.5], dim=2, slice=[0])  # IoU 1/10 with both
    record = build_record("case", "patient", truth, Detections.empty(), wide, slice_iou=0.1)
    assert record.slices.predictions[0].hits == (0, 1)


def test_json_round_trip(truth):
    flat = Detections.build([[2, 4, 4, 5]], [0.9], dim=2, slice=[1])
    record = build_record("case", "patient", truth, Detections.build([truth.boxes[0]], [0.9]), flat)
    text = json.dumps(to_plain(record), allow_nan=False)
    assert from_plain(CaseRecord, json.loads(text)) == record


def test_nothing_there_nothing_found():
    truth = truth_from_instances(np.zeros((2, 2, 2), dtype=int), {}, (1.0, 1.0, 1.0))
    record = build_record(
        "case", "patient", truth, Detections.empty(), Detections.empty(2, {"slice": np.zeros(0, dtype=int)})
    )
    assert record.lesions == record.predictions == ()
    others = ("overlap_0.10", "distance_5mm", "centre")
    assert record.matches == dict.fromkeys([*map(iou_key, DEFAULT_IOUS), *others], ())
    assert record.slices.predictions == record.slices.truth == ()


def test_unknown_iou_is_named(truth):
    record = build_record("case7", "patient", truth, Detections.empty(), ious=[0.1], rules=[])
    with pytest.raises(ValueError, match=r"case7: not matched at IoU 0\.50, only at 0\.10"):
        record.claims(0.5)


@pytest.mark.parametrize(
    ("detections", "flat", "options", "message"),
    [
        (Detections.build([[0, 0, 0, 1, 1, 1]], [np.nan]), None, {}, "not a finite number"),
        (Detections.build([[0, 0, 0, 1, 1, np.inf]], [0.5]), None, {}, "not a finite number"),
        (Detections.build([[0, 0, 1, 1]], [0.5]), None, {}, "expected 3D boxes, got 2D"),
        (Detections.empty(), Detections.build([[0, 0, 1, 1]], [0.5], slice=[6]), {}, r"must lie in \[0, 6\)"),
        (
            Detections.empty(),
            Detections.build([[0, 0, 1, 1]], [0.5], slice=[0]),
            {"slice_iou": 0.0},
            "slice-wise",
        ),
        (Detections.empty(), None, {"ious": [0.125]}, "two decimals"),
    ],
)
def test_wrong_input_is_refused(truth, detections, flat, options, message):
    with pytest.raises(ValueError, match=message):
        build_record("case", "patient", truth, detections, flat, **options)


def test_truth_refuses_columns_that_do_not_fit():
    box = np.array([[0.0, 0, 0, 1, 1, 1]])
    with pytest.raises(ValueError, match="different lengths"):
        Truth(np.array([0, 1]), box)
    with pytest.raises(ValueError, match=r"slice_indices must lie in \[0, 1\)"):
        Truth(np.array([0]), box, np.array([1]), np.array([0]), np.array([[0.0, 0, 1, 1]]), 1)
