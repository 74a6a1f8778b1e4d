from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from tiny_cases import random_records, row_case, row_cases

from nndet_psma.evaluation.detection.operating_points import OperatingPoint, best_f1, operating_points
from nndet_psma.evaluation.detection.ranking import rank_detections


@pytest.fixture
def ranked():
    """3 lesions in 2 cases; 0.9 hit, 0.8 hit and miss, 0.6 miss, 0.5 hit."""
    records = row_cases(([0, 1], [(0.9, 0), (0.8, 5), (0.5, 1)]), ([0], [(0.8, 0), (0.6, 5)]))
    return rank_detections(records, iou=0.5, max_detections=None)


def test_all_thresholds(ranked):
    rows = operating_points(ranked)
    assert [(row.threshold, row.tp, row.fp, row.fn) for row in rows] == [
        (0.9, 1, 0, 2),
        (0.8, 2, 1, 1),
        (0.6, 2, 2, 1),
        (0.5, 3, 2, 0),
    ]
    assert rows[1] == OperatingPoint(0.8, 2 / 3, 2 / 3, 2 / 3, 0.5, 2, 1, 1, 0.5)
    assert rows[3].f1 == 6 / 8


def test_a_score_equal_to_the_threshold_counts(ranked):
    rows = operating_points(ranked, [0.8, 0.81, 0.0, 1.0])
    assert [(row.tp, row.fp) for row in rows] == [(2, 1), (1, 0), (3, 2), (0, 0)]
    assert rows[3] == OperatingPoint(1.0, 0.0, None, 0.0, 0.0, 0, 0, 3, 0.0)


def test_best_f1_prefers_the_higher_threshold(ranked):
    assert best_f1(operating_points(ranked)).threshold == 0.5
    # 0.9: 1 of 2 found, F1 2/3; 0.7: both found with two false boxes, F1 4/6: equal
    tied = row_cases(([0, 1], [(0.9, 0), (0.8, 5), (0.75, 5), (0.7, 1)]))
    assert best_f1(operating_points(rank_detections(tied, iou=0.5))).threshold == 0.9


def test_case_drawn_twice_counts_twice(ranked):
    row = operating_points(ranked, [0.5], np.array([2, 0]))[0]
    assert (row.tp, row.fp, row.fn, row.fp_per_case) == (4, 2, 0, 1.0)


def test_false_positives_of_two_scans_of_one_patient():
    # 3 false positives in 3 scans of 2 patients: 1 per scan, 3/2 per patient
    records = [
        row_case("a", [], [(0.9, 5), (0.8, 5)], patient="one"),
        row_case("b", [], [(0.7, 5)], patient="one"),
        row_case("c", [0], [(0.9, 0)], patient="two"),
    ]
    row = operating_points(rank_detections(records, iou=0.5), [0.5])[0]
    assert (row.fp_per_case, row.fp_per_patient) == (1.0, 1.5)


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        ([], OperatingPoint(0.5, None, None, None, None, 0, 0, 0)),
        ([([], [])], OperatingPoint(0.5, None, None, None, 0.0, 0, 0, 0, 0.0)),
        ([([], [(0.9, 0)])], OperatingPoint(0.5, None, 0.0, None, 1.0, 0, 1, 0, 1.0)),
        ([([0], [])], OperatingPoint(0.5, 0.0, None, 0.0, 0.0, 0, 0, 1, 0.0)),
    ],
)
def test_nothing_to_count(cases, expected):
    ranked = rank_detections(row_cases(*cases), iou=0.5)
    assert operating_points(ranked, [0.5]) == [expected]


def test_no_rows_no_best():
    assert operating_points(rank_detections([], iou=0.5)) == []
    assert best_f1([]) is None
    lesion_free = rank_detections(row_cases(([], [(0.9, 0)])), iou=0.5)
    assert best_f1(operating_points(lesion_free)) is None


@settings(max_examples=60, deadline=None)
@given(random_records(min_cases=1))
def test_a_lower_threshold_finds_no_fewer_lesions_and_no_fewer_false_positives(records):
    rows = operating_points(rank_detections(records, iou=0.5))
    lesions = sum(len(record.lesions) for record in records)
    for above, below in pairwise(rows):
        assert below.threshold < above.threshold
        assert below.tp >= above.tp
        assert below.fp >= above.fp
    assert all(row.tp + row.fn == lesions for row in rows)
