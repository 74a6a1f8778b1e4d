import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from postproc_cases import A1, A2, FAR, A, random_slice_boxes, same, shuffled, slice_boxes

from nndet_psma.boxes.clustering import nms
from nndet_psma.boxes.detections import Detections
from nndet_psma.postproc.steps.bagging import window_bagging


def test_consensus_of_three_voters():
    # seed A (0.8); A1 0.6 and A2 0.2 join at IoU >= 1/3: x0 = (0 + 0.6 * 1 + 0.2 * 2) / 1.6 = 0.625;
    # score (0.8 + 0.6 + 0.2) / 4 voters = 0.4
    voters = [
        slice_boxes((5, A1, 0.6)),
        slice_boxes((5, A, 0.8)),
        slice_boxes((5, A2, 0.2)),
        Detections.empty(2),
    ]
    found = window_bagging(voters, vote_iou=1 / 3, min_votes=3)
    np.testing.assert_allclose(found.boxes, [[0, 0.625, 4, 4.625]])
    np.testing.assert_allclose(found.scores, [0.4])
    assert found.columns["votes"].tolist() == [3]
    assert found.columns["slice"].tolist() == [5]
    assert len(window_bagging(voters, vote_iou=1 / 3, min_votes=4)) == 0


def test_overlap_counts_with_the_seed_only():
    # A2 overlaps A1 by 0.6 but the seed A by 1/3: it stays alone
    voters = [slice_boxes((0, A, 0.9)), slice_boxes((0, A1, 0.8)), slice_boxes((0, A2, 0.7))]
    found = window_bagging(voters, vote_iou=0.5, min_votes=1)
    assert found.columns["votes"].tolist() == [2, 1]
    np.testing.assert_allclose(found.scores, [1.7 / 3, 0.7 / 3])


def test_one_vote_per_voter():
    # both boxes of the first voter overlap the seed of the second: two votes, not three; the worse one is dropped
    voters = [slice_boxes((0, A1, 0.6), (0, A2, 0.5)), slice_boxes((0, A, 0.9))]
    found = window_bagging(voters, vote_iou=1 / 3, min_votes=1)
    assert found.columns["votes"].tolist() == [2]
    np.testing.assert_allclose(found.scores, [0.75])


def test_a_voter_does_not_support_itself():
    voters = [slice_boxes((0, A, 0.9), (0, A1, 0.8)), slice_boxes((0, FAR, 0.7))]
    assert len(window_bagging(voters, vote_iou=0.3, min_votes=2)) == 0


def test_slices_and_labels_vote_apart():
    voters = [slice_boxes((0, A, 0.9)), slice_boxes((1, A, 0.8)), slice_boxes((0, A, 0.7, 1))]
    assert window_bagging(voters, vote_iou=0.1, min_votes=1).columns["votes"].tolist() == [1, 1, 1]


def test_absent_votes_lower_the_score():
    # sure box of one voter: 0.9 / 3 = 0.3; lukewarm box of all: 3 * 0.5 / 3 = 0.5 goes first
    voters = [slice_boxes((0, FAR, 0.9), (0, A, 0.5)), slice_boxes((0, A, 0.5)), slice_boxes((0, A, 0.5))]
    found = window_bagging(voters, vote_iou=1.0, min_votes=1)
    np.testing.assert_allclose(found.scores, [0.5, 0.3])
    assert found.boxes.tolist() == [list(A), list(FAR)]


def test_equal_scores_seed_from_the_earlier_voter():
    first, second = slice_boxes((0, A, 0.5), who=[1]), slice_boxes((0, A1, 0.5), who=[2])
    assert window_bagging([first, second], vote_iou=0.5, min_votes=1).columns["who"].tolist() == [1]
    assert window_bagging([second, first], vote_iou=0.5, min_votes=1).columns["who"].tolist() == [2]


def test_nobody_sees_anything():
    found = window_bagging([slice_boxes(), slice_boxes()], vote_iou=0.5, min_votes=2)
    assert len(found) == 0
    assert {"slice", "votes"} <= set(found.columns)


@pytest.mark.parametrize("min_votes", [0, 3])
def test_votes_out_of_range(min_votes):
    with pytest.raises(ValueError, match=f"between 1 and the 2 voters present, got {min_votes}"):
        window_bagging([slice_boxes(), slice_boxes()], vote_iou=0.5, min_votes=min_votes)


@given(random_slice_boxes(), st.sampled_from([0.25, 0.55, 0.77]))
def test_one_voter_one_vote_is_suppression(d, iou):
    found = window_bagging([d], vote_iou=iou, min_votes=1)
    assert same(found, nms(d, iou - 1e-9).with_columns(votes=np.ones(len(found), dtype=np.int64)))


@given(
    st.lists(random_slice_boxes(max_size=6), min_size=2, max_size=4),
    st.sampled_from([0.2, 0.5]),
    st.integers(0, 99),
)
def test_order_within_voters_does_not_matter_and_votes_nest(voters, iou, seed):
    found = [window_bagging(voters, vote_iou=iou, min_votes=k) for k in range(1, len(voters) + 1)]
    assert same(found[0], window_bagging([shuffled(d, seed) for d in voters], vote_iou=iou, min_votes=1))
    for k, some in enumerate(found, start=1):
        assert same(some, found[0].select(found[0].columns["votes"] >= k))
    assert (found[0].scores <= 1).all()
