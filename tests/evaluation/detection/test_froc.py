import numpy as np
import pytest
from hypothesis import given, settings
from tiny_cases import random_records, row_cases

from nndet_psma.evaluation.detection.froc import FP_RATES, froc_curve, froc_score
from nndet_psma.evaluation.detection.ranking import rank_detections


def test_every_point_of_the_curve():
    # 3 lesions in 2 cases; 0.9 hit, 0.8 hit and miss, 0.6 miss, 0.5 hit
    records = row_cases(
        ([0, 1], [(0.9, 0), (0.8, 5), (0.5, 1)]),
        ([0], [(0.8, 0), (0.6, 5)]),
    )
    curve = froc_curve(rank_detections(records, iou=0.5))
    assert curve.thresholds.tolist() == [np.inf, 0.9, 0.8, 0.6, 0.5]
    assert curve.fp_per_case.tolist() == [0, 0, 0.5, 1, 1]
    assert curve.sensitivity.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1])
    # 1/8 lies a quarter of the way from (0, 1/3) to (1/2, 2/3); at 1 the upper end of the upright piece
    assert curve.sensitivity_at((1 / 8, 1 / 2, 1.0, 8.0)).tolist() == pytest.approx([5 / 12, 2 / 3, 1, 1])


def test_best_point_stays_when_all_lesions_are_found():
    records = row_cases(([0], [(0.9, 0)]), ([0], [(0.8, 5), (0.7, 0)]))
    curve = froc_curve(rank_detections(records, iou=0.5))
    assert (curve.fp_per_case[-1], curve.sensitivity[-1]) == (0.5, 1.0)


def test_cases_without_lesions_and_predictions_count_in_the_rate():
    one_case = row_cases(([0], [(0.9, 5), (0.8, 0)]))
    eight_cases = one_case + row_cases(*[([], [])] * 8)[1:]
    assert froc_score(rank_detections(one_case, iou=0.5)) == pytest.approx(4 / 7)
    assert froc_score(rank_detections(eight_cases, iou=0.5)) == 1  # one false positive in eight cases


def test_without_predictions_the_curve_is_its_origin():
    curve = froc_curve(rank_detections(row_cases(([0], [])), iou=0.5))
    assert curve.fp_per_case.tolist() == curve.sensitivity.tolist() == [0.0]
    assert curve.sensitivity_at().tolist() == [0.0] * 7


def test_without_lesions_there_is_no_curve():
    assert froc_curve(rank_detections(row_cases(([], [(0.9, 0)])), iou=0.5)) is None
    assert froc_curve(rank_detections([], iou=0.5)) is None


def test_a_case_left_out_by_its_weight_brings_nothing():
    records = row_cases(([0], [(0.9, 0)]), ([0], [(0.8, 5)]))
    ranked = rank_detections(records, iou=0.5)
    assert froc_score(ranked, np.array([1, 0])) == 1
    assert froc_score(ranked, np.array([0, 1])) == 0
    assert froc_score(ranked, np.array([0, 0])) is None


def slow_points(records, iou):
    """Count again at every threshold."""
    thresholds = sorted({p.score for record in records for p in record.predictions}, reverse=True)
    lesions = sum(len(record.lesions) for record in records)
    points = [(0.0, 0.0)]
    for threshold in thresholds:
        claims = [
            lesion
            for record in records
            for prediction, lesion in zip(record.predictions, record.claims(iou), strict=True)
            if prediction.score >= threshold
        ]
        tp = sum(lesion >= 0 for lesion in claims)
        points.append(((len(claims) - tp) / len(records), tp / lesions))
    return points


@settings(max_examples=100, deadline=None)
@given(random_records(min_cases=1))
def test_equals_the_slow_reference_and_rises(records):
    curve = froc_curve(rank_detections(records, iou=0.5))
    if curve is None:
        assert not any(record.lesions for record in records)
        return
    assert list(zip(curve.fp_per_case, curve.sensitivity, strict=True)) == slow_points(records, 0.5)
    assert (np.diff(curve.fp_per_case) >= 0).all()
    assert (np.diff(curve.sensitivity) >= 0).all()
    assert (np.diff(curve.sensitivity_at(FP_RATES)) >= 0).all()
    assert curve.sensitivity_at((1e9,))[0] == curve.sensitivity[-1]
