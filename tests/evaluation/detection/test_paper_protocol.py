from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_cases import row_case

from nndet_psma.boxes.detections import Detections
from nndet_psma.evaluation.detection.paper_protocol import PaperScores, paper_scores, slice_table
from nndet_psma.evaluation.detection.record import Truth, build_record
from nndet_psma.evaluation.statistics.bootstrap import drawn_records


def flat_boxes(predictions):
    return Detections.build(
        [[0, x, 1, x + 1] for _, _, x in predictions],
        [score for score, _, _ in predictions],
        dim=2,
        slice=np.array([z for _, z, _ in predictions], dtype=np.int64),
    )


def slice_case(case_id, num_slices, lesions, predictions, *, slice_iou=0.5, candidates=None):
    """Lesions as (x, slices); predictions as (score, slice, x): unit squares, IoU 1 or 0."""
    rows = [(z, index, x) for index, (x, slices) in enumerate(lesions) for z in slices]
    truth = Truth(
        labels=np.zeros(len(lesions), dtype=np.int64),
        boxes=np.array([[min(s), 0, x, max(s) + 1, 1, x + 1] for x, s in lesions], dtype=float).reshape(
            -1, 6
        ),
        slice_indices=np.array([z for z, _, _ in rows], dtype=np.int64),
        slice_lesions=np.array([index for _, index, _ in rows], dtype=np.int64),
        slice_boxes=np.array([[0, x, 1, x + 1] for _, _, x in rows], dtype=float).reshape(-1, 4),
        num_slices=num_slices,
    )
    return build_record(
        case_id,
        case_id,
        truth,
        Detections.empty(),
        flat_boxes(predictions),
        slice_iou=slice_iou,
        slice_candidates=None if candidates is None else flat_boxes(candidates),
    )


def scores_of(*records, threshold=0.0, weights=None):
    return paper_scores(slice_table(records, threshold=threshold), weights)


@pytest.fixture
def record():
    """Lesion A on slices 0 to 2 of 5, lesion B on slice 2; A is hit twice on slice 1, one miss on 2, one on 4."""
    return slice_case(
        "case", 5, [(0, [0, 1, 2]), (3, [2])], [(0.9, 1, 0), (0.3, 1, 0), (0.8, 2, 7), (0.4, 4, 7)]
    )


def test_one_hit_slice_hits_the_lesion(record):
    # sensitivity 1 of 2 lesions; precision 2 of 4 boxes; image scores 0, 0.9, 0.8, 0, 0.4 with slices 0, 1, 2 positive:
    # against slice 3 (score 0): tie, win, win; against slice 4 (0.4): loss, win, win = 4.5 of 6
    assert scores_of(record) == PaperScores(1 / 2, 1 / 2, 1 / 2, 3 / 4, 3 / 4)


def test_threshold_removes_boxes_but_ranks_every_image(record):
    # boxes 0.9 (hit) and 0.8 (miss) are left; slice 4 falls to 0: tie, win, win twice = 5 of 6. The ranking of all
    # candidates does not see the threshold
    assert scores_of(record, threshold=0.8) == PaperScores(1 / 2, 1 / 2, 1 / 2, 3 / 4, 5 / 6)
    # only the hit: F1 of 1/2 and 1 is 2/3; images 0, 0.9, 0, 0, 0: two of three positives tie with both negatives
    assert scores_of(record, threshold=0.9) == PaperScores(
        1 / 2, 1.0, pytest.approx(2 / 3), 3 / 4, pytest.approx(4 / 6)
    )


def test_candidates_that_were_not_accepted_rank_the_images():
    """Five slices, lesions on 0 and 1. Only the box of slice 1 is accepted; slice 0 has a candidate of 0.3, slice 4 one
    of 0.2.

    All candidates: images 0.3, 0.9, 0, 0, 0.2, both positives above all three negatives: 1. Cut: 0, 0.9, 0, 0, 0:
    slice 0 ties with three, slice 1 wins three = 4.5 of 6. The accepted box on slice 1 is a candidate of 0.8 as well.
    """
    boxes = [(0.3, 0, 0), (0.8, 1, 0), (0.9, 1, 0), (0.2, 4, 7)]
    record = slice_case("case", 5, [(0, [0, 1])], [(0.9, 1, 0)], candidates=boxes)
    assert record.slices.image_scores == (0.3, 0.9, 0.0, 0.0, 0.2)
    assert scores_of(record) == PaperScores(1.0, 1.0, 1.0, 1.0, 3 / 4)


def test_older_records_do_not_hold_candidates(record):
    old = replace(record, slices=replace(record.slices, image_scores=None))
    assert scores_of(old) == PaperScores(1 / 2, 1 / 2, 1 / 2, None, 3 / 4)
    assert scores_of(replace(record, case_id="new"), old).auc is None


def test_sensitivity_counts_lesions_and_precision_counts_boxes():
    # a lesion on ten slices found on all, a lesion on one slice missed: 1 of 2 lesions, 10 of 11 boxes
    boxes = [(0.9, z, 0) for z in range(10)] + [(0.9, 11, 5)]
    scores = scores_of(slice_case("case", 12, [(0, range(10)), (3, [10])], boxes))
    assert (scores.sensitivity, scores.precision) == (1 / 2, 10 / 11)
    assert scores.f1 == pytest.approx(2 * (1 / 2) * (10 / 11) / (1 / 2 + 10 / 11))


def test_box_on_the_lesion_but_on_another_slice_is_a_miss():
    scores = scores_of(slice_case("case", 3, [(0, [0])], [(0.9, 1, 0)]))
    assert scores == PaperScores(
        0.0, 0.0, 0.0, 0.25, 0.25
    )  # positive slice 0 ties with slice 2, loses to slice 1


def test_a_box_anywhere_marks_its_image():
    # the image score does not ask whether the box hits
    scores = scores_of(slice_case("case", 2, [(0, [0])], [(0.9, 0, 7)]))
    assert scores == PaperScores(0.0, 0.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        ([], PaperScores(None, None, None, None, None)),
        ([("a", 3, [], [])], PaperScores(None, None, None, None, None)),
        ([("a", 3, [], [(0.9, 0, 0)])], PaperScores(None, 0.0, None, None, None)),
        ([("a", 3, [(0, [1])], [])], PaperScores(0.0, None, 0.0, 0.5, 0.5)),
        ([("a", 1, [(0, [0])], [(0.9, 0, 0)])], PaperScores(1.0, 1.0, 1.0, None, None)),
    ],
)
def test_nothing_to_count(cases, expected):
    assert scores_of(*(slice_case(*case) for case in cases)) == expected


def test_cases_without_slice_wise_detections_have_no_table(record):
    assert slice_table([record, row_case("other", [0], [])]) is None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_weights_mean_repeated_cases(data):
    box = st.tuples(st.sampled_from([0.2, 0.5, 0.8]), st.integers(0, 3), st.sampled_from([0, 3, 7]))
    lesions = st.sampled_from([[], [(0, [0, 1])], [(0, [1]), (3, [1, 2, 3])]])
    cases = data.draw(st.lists(st.tuples(lesions, st.lists(box, max_size=4)), min_size=1, max_size=4))
    records = [slice_case(f"case{index}", 4, *case) for index, case in enumerate(cases)]
    weights = np.array(
        data.draw(st.lists(st.integers(0, 3), min_size=len(records), max_size=len(records))), dtype=np.int64
    )
    threshold = data.draw(st.sampled_from([0.0, 0.5, 0.8]))
    weighted = scores_of(*records, threshold=threshold, weights=weights)
    listed = scores_of(*drawn_records(records, weights), threshold=threshold)
    for name in ("sensitivity", "precision", "f1", "auc", "auc_accepted"):
        expected = getattr(listed, name)
        assert getattr(weighted, name) == (None if expected is None else pytest.approx(expected, abs=1e-12))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 1), st.integers(0, 3), st.sampled_from([0, 3, 7])), max_size=8))
def test_sensitivity_falls_with_the_threshold(boxes):
    record = slice_case("case", 4, [(0, [0, 1]), (3, [1, 2])], boxes)
    values = [scores_of(record, threshold=threshold).sensitivity for threshold in np.linspace(0, 1.01, 12)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == 0
