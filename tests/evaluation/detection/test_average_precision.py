from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_cases import random_records, row_case, row_cases

from nndet_psma.evaluation.detection.average_precision import average_precision, mean_of_defined
from nndet_psma.evaluation.detection.froc import froc_curve, froc_score
from nndet_psma.evaluation.detection.ranking import rank_detections
from nndet_psma.evaluation.statistics.bootstrap import drawn_records

# (lesions, predictions (score, position)) per case -> average precision, FROC score.
# Of the 101 recalls, 51 lie at or below one half.
STORIES = {
    "the only lesion is found by the only box": ([([0], [(0.9, 0)])], 1, 1),
    "one lesion and no box": ([([0], [])], 0, 0),
    "no lesion and no box": ([([], [])], None, None),
    "no lesion, one false box": ([([], [(0.9, 0)])], None, None),
    "no case at all": ([], None, None),
    # precision 1/2 at every recall; curve (0,0) (1,0) (1,1): nothing below one false positive, four rates from there on
    "a false box scores higher than the right one": (
        [([0], [(0.9, 5), (0.8, 0)])],
        Fraction(1, 2),
        Fraction(4, 7),
    ),
    "two lesions, one found, nothing false": ([([0, 1], [(0.9, 0)])], Fraction(51, 101), Fraction(1, 2)),
    # precision 1 up to recall 1/2, then 2/3: (51 + 50 * 2/3) / 101; curve 1/2 below one false positive, then 1
    "right, false, right": (
        [([0, 1], [(0.9, 0), (0.8, 5), (0.7, 1)])],
        Fraction(253, 303),
        Fraction(11, 14),
    ),
    "a lesion is hit twice: the second box is false but comes last": ([([0], [(0.9, 0), (0.8, 0)])], 1, 1),
    # half a false positive per case before the hit: five of seven rates
    "the false box lies in a lesion-free case and scores higher": (
        [([0], [(0.5, 0)]), ([], [(0.9, 0)])],
        Fraction(1, 2),
        Fraction(5, 7),
    ),
    # one threshold takes both: the curve is a line from (0, 0) to (1/2, 1), read at 1/8 and 1/4;
    # for average precision the earlier case leads
    "a false and a right box share one score": (
        [([], [(0.9, 0)]), ([0], [(0.9, 0)])],
        Fraction(1, 2),
        (Fraction(1, 4) + Fraction(1, 2) + 5) / 7,
    ),
    # precision 1 to recall 1/2, then 2/4; sensitivity 1/2 at 1/8 and 1/4, 1 from 1/2 on: the last point counts
    "every lesion is found, the last one after two false boxes in four cases": (
        [([0], [(0.9, 0)]), ([], [(0.8, 0)]), ([], [(0.7, 0)]), ([0], [(0.6, 0)])],
        Fraction(76, 101),
        Fraction(6, 7),
    ),
    "a right box of low score in a case of its own": ([([0], [(0.1, 0)]), ([], [])], 1, 1),
}


@pytest.mark.parametrize("story", STORIES)
def test_story(story):
    cases, precision, froc = STORIES[story]
    ranked = rank_detections(row_cases(*cases), iou=0.5)
    for value, expected in ((average_precision(ranked), precision), (froc_score(ranked), froc)):
        assert value == (None if expected is None else pytest.approx(float(expected), abs=1e-12))


def test_recall_is_compared_in_integers():
    # 57 of 100 lesions reach the recall 0.57 exactly: 58 of 101 points; 57 * 0.01 is a little more than 0.57 in floats
    records = row_cases((range(100), [(0.9, place) for place in range(57)]))
    assert average_precision(rank_detections(records, iou=0.5)) == pytest.approx(58 / 101, abs=1e-12)


def test_only_the_best_hundred_of_a_case_and_class_count():
    false = [(0.9, 5)] * 100
    records = row_cases(([0], [*false, (0.5, 0)]))
    assert average_precision(rank_detections(records, iou=0.5)) == 0
    assert average_precision(rank_detections(records, iou=0.5, max_detections=None)) == pytest.approx(1 / 101)
    # the hundred false boxes belong to another class: they do not push out the right one
    labels = [1] * 100 + [0]
    two_classes = [row_case("case", [0], [*false, (0.5, 0)], prediction_labels=labels)]
    assert average_precision(rank_detections(two_classes, iou=0.5, label=0)) == 1
    assert len(rank_detections(two_classes, iou=0.5).scores) == 101


def test_label_selects_lesions_and_predictions():
    record = row_case("case", [0, 1], [(0.9, 0), (0.8, 1)], labels=[0, 1], prediction_labels=[0, 0])
    assert average_precision(rank_detections([record], iou=0.5, label=0)) == 1
    assert average_precision(rank_detections([record], iou=0.5, label=1)) == 0
    assert average_precision(rank_detections([record], iou=0.5, label=2)) is None


def test_mean_leaves_out_what_is_undefined():
    assert mean_of_defined([0.5, None, 1.0]) == 0.75
    assert mean_of_defined([None]) is None
    assert mean_of_defined([]) is None


def slow_average_precision(records, iou):
    """Every prediction is a threshold; every recall asks for the best precision at or beyond it."""
    rows = [
        (-prediction.score, case, row, lesion >= 0)
        for case, record in enumerate(records)
        for row, (prediction, lesion) in enumerate(zip(record.predictions, record.claims(iou), strict=True))
    ]
    lesions = sum(len(record.lesions) for record in records)
    if not lesions:
        return None
    tp, points = 0, []
    for seen, (*_, hit) in enumerate(sorted(rows), start=1):
        tp += hit
        points.append((Fraction(tp, lesions), Fraction(tp, seen)))
    grid = [Fraction(step, 100) for step in range(101)]
    return sum(max((p for r, p in points if r >= wanted), default=0) for wanted in grid) / 101


@settings(max_examples=100, deadline=None)
@given(random_records())
def test_equals_the_slow_reference(records):
    expected = slow_average_precision(records, 0.5)
    value = average_precision(rank_detections(records, iou=0.5))
    assert value == (None if expected is None else pytest.approx(float(expected), abs=1e-12))


def rescored(records, transform):
    return row_cases(
        *(
            (
                range(len(record.lesions)),
                [(transform(prediction.score), prediction.box[2]) for prediction in record.predictions],
            )
            for record in records
        )
    )


@settings(max_examples=60, deadline=None)
@given(random_records())
def test_a_monotone_change_of_scores_changes_nothing(records):
    before = rank_detections(records, iou=0.5)
    after = rank_detections(rescored(records, lambda score: score**3 / 2), iou=0.5)
    assert average_precision(after) == average_precision(before)
    assert froc_score(after) == froc_score(before)


@settings(max_examples=60, deadline=None)
@given(random_records(min_cases=1), st.floats(0.0001, 0.9))
def test_one_more_false_positive_never_helps_and_below_all_others_changes_nothing(records, score):
    def with_false(score):
        return [*records, row_case("more", [], [(score, 5)])]

    # compared with the same cases, so that false positives per case have the same base
    base = rank_detections([*records, row_case("more", [], [])], iou=0.5)
    for extra, at_most in ((score, True), (0.00001, False)):
        changed = rank_detections(with_false(extra), iou=0.5)
        if average_precision(base) is None:
            assert average_precision(changed) is None
        elif at_most:
            assert average_precision(changed) <= average_precision(base)
            assert froc_score(changed) <= froc_score(base) + 1e-12
        else:
            assert average_precision(changed) == average_precision(base)


@settings(max_examples=60, deadline=None)
@given(random_records(min_cases=1, max_cases=4), st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_weights_mean_repeated_cases(records, weights):
    times = np.array(weights[: len(records)])
    weighted = rank_detections(records, iou=0.5)
    listed = rank_detections(drawn_records(records, times), iou=0.5)
    assert froc_score(weighted, times) == froc_score(listed)
    first, second = froc_curve(weighted, times), froc_curve(listed)
    if second is not None:
        assert first.sensitivity[-1] == second.sensitivity[-1]
        assert first.fp_per_case[-1] == second.fp_per_case[-1]


@settings(max_examples=60, deadline=None)
@given(
    random_records(min_cases=1, max_cases=4, distinct_scores=True),
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
)
def test_weights_mean_repeated_cases_for_average_precision(records, weights):
    times = np.array(weights[: len(records)])
    weighted = average_precision(rank_detections(records, iou=0.5), times)
    listed = average_precision(rank_detections(drawn_records(records, times), iou=0.5))
    assert weighted == (None if listed is None else pytest.approx(listed, abs=1e-12))
