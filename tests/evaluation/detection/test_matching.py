import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nndet_psma.boxes.box import empty_boxes, pairwise_iou
from nndet_psma.evaluation.detection.matching import (
    HitRule,
    claim_at_each,
    claim_greedy,
    closeness,
    match_greedy,
)


def match(predictions, scores, truth, *, iou=0.1, labels=None, truth_labels=None):
    """Matches of 1D intervals (x0, x1) laid out as 2D boxes of height 1."""

    def boxes(intervals):
        return np.array([[0, x0, 1, x1] for x0, x1 in intervals], dtype=np.float64).reshape(-1, 4)

    zeros = np.zeros(len(predictions), dtype=np.int64)
    truth_zeros = np.zeros(len(truth), dtype=np.int64)
    return match_greedy(
        boxes(predictions),
        np.array(scores, dtype=np.float64),
        zeros if labels is None else np.array(labels),
        boxes(truth),
        truth_zeros if truth_labels is None else np.array(truth_labels),
        iou=iou,
    ).tolist()


def test_best_score_claims_and_second_box_on_the_lesion_is_a_false_positive():
    # the second fits perfectly, the first overlaps 5/15 only, but it has the higher score
    assert match([(5, 15), (0, 10)], [0.9, 0.8], [(0, 10)]) == [0, -1]
    assert match([(5, 15), (0, 10)], [0.7, 0.8], [(0, 10)]) == [-1, 0]


def test_equal_scores_choose_in_the_order_given():
    assert match([(5, 15), (0, 10)], [0.8, 0.8], [(0, 10)]) == [0, -1]
    assert match([(0, 10), (5, 15)], [0.8, 0.8], [(0, 10)]) == [0, -1]


def test_highest_iou_is_claimed_and_of_equal_ones_the_first():
    # IoU with the lesions: 2/12 and 8/10
    assert match([(8, 18)], [0.5], [(4, 10), (10, 18)]) == [1]
    assert match([(5, 15)], [0.5], [(0, 10), (10, 20)]) == [0]


def test_second_box_takes_the_neighbour_when_the_better_lesion_is_gone():
    # both prefer lesion 0 (IoU 1 and 8/12); the second overlaps lesion 1 by 2/18
    assert match([(0, 10), (2, 12)], [0.9, 0.8], [(0, 10), (10, 20)]) == [0, 1]


def test_one_box_over_two_lesions_finds_one():
    assert match([(0, 20)], [0.9], [(0, 9), (10, 20)]) == [1]


@pytest.mark.parametrize(("length", "found"), [(10, 0), (11, -1)])
def test_iou_equal_to_the_threshold_is_a_match(length, found):
    # a unit lesion inside a box of that length: IoU 1/10 or 1/11
    assert match([(0, length)], [0.5], [(0, 1)], iou=0.1) == [found]


def test_classes_do_not_match_each_other():
    assert match([(0, 10), (0, 10)], [0.9, 0.8], [(0, 10)], labels=[1, 0], truth_labels=[0]) == [-1, 0]


def test_3d_needs_overlap_in_z():
    lesion = np.array([[0.0, 0, 0, 2, 2, 2]])
    boxes = np.array([[2.0, 0, 0, 4, 2, 2], [1.0, 0, 0, 3, 2, 2]])  # IoU 0 and 4/12
    labels = np.zeros(2, dtype=np.int64)
    assert match_greedy(boxes, np.array([0.9, 0.8]), labels, lesion, labels[:1], iou=0.3).tolist() == [-1, 0]


@pytest.mark.parametrize("dim", [2, 3])
def test_nothing_predicted_or_nothing_there(dim):
    none, labels = empty_boxes(dim), np.zeros(0, dtype=np.int64)
    box = np.array([[0.0] * dim + [1.0] * dim])
    one = np.zeros(1, dtype=np.int64)
    assert match_greedy(none, np.zeros(0), labels, box, one, iou=0.1).tolist() == []
    assert match_greedy(box, np.ones(1), one, none, labels, iou=0.1).tolist() == [-1]


@pytest.mark.parametrize("iou", [0.0, -0.1, 1.1])
def test_threshold_outside_its_range_is_refused(iou):
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\]"):
        claim_greedy(np.ones((1, 1)), np.ones(1), iou=iou)


def test_inputs_stay_unchanged():
    overlaps = np.array([[0.5, 0.6], [0.7, 0.2]])
    claim_greedy(overlaps, np.array([0.1, 0.2]), iou=0.3)
    assert overlaps.tolist() == [[0.5, 0.6], [0.7, 0.2]]


def slow_claims(overlaps, scores, iou):
    """The rule word for word."""
    taken, claims = set(), [-1] * len(scores)
    for prediction in sorted(range(len(scores)), key=lambda index: (-scores[index], index)):
        candidates = [
            (-overlap, lesion)
            for lesion, overlap in enumerate(overlaps[prediction])
            if lesion not in taken and overlap >= iou
        ]
        if candidates:
            claims[prediction] = min(candidates)[1]
            taken.add(claims[prediction])
    return claims


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_equals_the_slow_reference(data):
    predictions, lesions = data.draw(st.integers(0, 8)), data.draw(st.integers(0, 5))
    tenths = st.lists(st.integers(0, 10), min_size=lesions, max_size=lesions)
    overlaps = np.array(data.draw(st.lists(tenths, min_size=predictions, max_size=predictions))) / 10
    overlaps = overlaps.reshape(predictions, lesions)
    scores = np.array(data.draw(st.lists(st.integers(0, 4), min_size=predictions, max_size=predictions)))
    for iou in (0.1, 0.5, 1.0):
        claims = claim_greedy(overlaps, scores.astype(float), iou=iou).tolist()
        assert claims == slow_claims(overlaps.tolist(), scores.tolist(), iou)


def test_random_3d_boxes_equal_the_slow_reference():
    rng = np.random.default_rng(3)
    lower = rng.uniform(0, 10, (40, 3))
    boxes = np.concatenate([lower, lower + rng.uniform(1, 8, (40, 3))], axis=1)
    predictions, lesions, scores = boxes[:28], boxes[28:], rng.uniform(size=28)
    labels = rng.integers(0, 2, 40)
    overlaps = pairwise_iou(predictions, lesions)
    overlaps[labels[:28, None] != labels[None, 28:]] = 0
    claims = match_greedy(predictions, scores, labels[:28], lesions, labels[28:], iou=0.15).tolist()
    assert claims == slow_claims(overlaps.tolist(), scores.tolist(), 0.15)
    assert 3 < sum(claim >= 0 for claim in claims) < 12  # the example is neither empty nor trivial


CUBE = np.array([[0.0, 0, 0, 4, 4, 4]])
INSIDE = np.array([[0.0, 0, 0, 2, 2, 2]])  # IoU 8/64, overlap 1, centres sqrt(3) voxels apart


@pytest.mark.parametrize(
    ("rule", "spacing", "expected"),
    [
        (HitRule("iou", 0.125), None, 0.125),
        (HitRule("iou", 0.126), None, -np.inf),
        (HitRule("overlap", 1.0), None, 1.0),
        (HitRule("distance", 2.0), (1, 1, 1), -np.sqrt(3)),
        (HitRule("distance", 2.0), (2, 1, 1), -np.inf),  # sqrt(4 + 1 + 1) = 2.45 mm
        (HitRule("distance", np.sqrt(3)), (1, 1, 1), -np.sqrt(3)),  # at most
        (HitRule("centre"), (2, 1, 1), -np.sqrt(6)),
    ],
)
def test_hit_rules(rule, spacing, expected):
    assert closeness(rule, INSIDE, CUBE, spacing).tolist() == [[pytest.approx(expected)]]


def test_a_centre_on_the_upper_edge_lies_outside():
    on_edge = np.array([[3.0, 1, 1, 5, 3, 3]])  # centre (4, 2, 2)
    assert closeness(HitRule("centre"), on_edge, CUBE).tolist() == [[-np.inf]]
    assert np.isfinite(
        closeness(HitRule("centre"), on_edge - [[4, 0, 0] * 2], CUBE)
    ).all()  # centre (0, 2, 2)


def test_boxes_without_volume_overlap_nothing():
    flat = np.array([[1.0, 1, 1, 1, 3, 3]])
    assert closeness(HitRule("overlap", 0.1), flat, CUBE).tolist() == [[-np.inf]]


def test_names_of_rules():
    rules = [HitRule("iou", 0.1), HitRule("overlap", 0.5), HitRule("distance", 7.5), HitRule("centre")]
    assert [rule.key for rule in rules] == ["0.10", "overlap_0.50", "distance_7.5mm", "centre"]


@pytest.mark.parametrize(
    "build", [lambda: HitRule("iou"), lambda: HitRule("overlap", 1.5), lambda: HitRule("distance")]
)
def test_rules_out_of_range_are_refused(build):
    with pytest.raises(ValueError, match="must"):
        build()


def test_distance_needs_spacing():
    with pytest.raises(ValueError, match="needs the voxel spacing"):
        closeness(HitRule("distance", 5.0), CUBE, CUBE)


def test_an_ignored_lesion_is_claimed_last_and_a_crowd_again_and_again():
    near = np.array([[0.9, 0.5], [0.9, 0.0], [0.9, 0.0]])
    scores = np.array([0.9, 0.8, 0.7])
    ignored = np.array([True, False])
    assert claim_at_each(near, scores, [0.4], ignored=ignored).tolist() == [[1, 0, -1]]
    assert claim_at_each(near, scores, [0.4], ignored=ignored, crowd=ignored).tolist() == [[1, 0, 0]]
    assert claim_at_each(near, scores, [0.6], ignored=ignored).tolist() == [[0, -1, -1]]


def slow_claims_with_ignored(near, scores, threshold, ignored, crowd):
    """The rule word for word, ignored lesions and crowds included."""
    taken, claims = set(), [-1] * len(scores)
    for prediction in sorted(range(len(scores)), key=lambda index: (-scores[index], index)):
        hits = [j for j in range(len(ignored)) if near[prediction][j] >= threshold and j not in taken]
        for group in ([j for j in hits if not ignored[j]], [j for j in hits if ignored[j]]):
            if group and claims[prediction] < 0:
                claims[prediction] = max(group, key=lambda j: (near[prediction][j], -j))
                if not crowd[claims[prediction]]:
                    taken.add(claims[prediction])
    return claims


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_ignored_lesions_equal_the_slow_reference(data):
    predictions, lesions = data.draw(st.integers(0, 6)), data.draw(st.integers(0, 5))
    tenths = st.lists(st.integers(0, 10), min_size=lesions, max_size=lesions)
    near = np.array(data.draw(st.lists(tenths, min_size=predictions, max_size=predictions))) / 10
    near = near.reshape(predictions, lesions)
    scores = np.array(
        data.draw(st.lists(st.integers(0, 3), min_size=predictions, max_size=predictions)), float
    )
    flags = st.lists(st.booleans(), min_size=lesions, max_size=lesions)
    ignored = np.array(data.draw(flags), dtype=bool)
    crowd = np.array(data.draw(flags), dtype=bool) & ignored
    claims = claim_at_each(near, scores, [0.1, 0.5], ignored=ignored, crowd=crowd)
    for row, threshold in zip(claims.tolist(), (0.1, 0.5), strict=True):
        assert row == slow_claims_with_ignored(near.tolist(), scores.tolist(), threshold, ignored, crowd)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["iou", "overlap", "distance", "centre"]))
def test_claims_are_hits_and_one_to_one_and_moving_everything_changes_nothing(seed, criterion):
    rng = np.random.default_rng(seed)
    lower = rng.integers(0, 8, (9, 3)).astype(float)
    boxes = np.concatenate([lower, lower + rng.integers(1, 5, (9, 3))], axis=1)
    rule = HitRule(criterion, {"iou": 0.1, "overlap": 0.3, "distance": 3.0, "centre": 0.0}[criterion])
    near = closeness(rule, boxes[:5], boxes[5:], (2.0, 1.0, 1.0))
    claims = claim_at_each(near, rng.uniform(size=5), [-np.inf])[0]
    taken = claims[claims >= 0]
    assert len(set(taken.tolist())) == len(taken)
    assert np.isfinite(near[np.flatnonzero(claims >= 0), taken]).all()
    moved = boxes + 64.0  # exact in floating point
    assert (closeness(rule, moved[:5], moved[5:], (2.0, 1.0, 1.0)) == near).all()
