import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from postproc_cases import A1, A2, A3, FAR, A, random_slice_boxes, shuffled, slice_boxes

from nndet_psma.boxes.detections import Detections
from nndet_psma.postproc.steps.linking import link_slices

SPACING = (3.0, 0.5, 0.25)


def link(d, link_iou=0.5, max_gap=0):
    return link_slices(d, link_iou=link_iou, max_gap=max_gap, spacing=SPACING)


def test_chain_of_three_slices():
    # neighbours overlap by 0.6; equal scores and three slices: the hull, x from 0 to 6
    slices, lesions = link(slice_boxes((4, A, 0.5), (5, A1, 0.5), (6, A2, 0.5)))
    assert lesions.boxes.tolist() == [[4, 0, 0, 7, 4, 6]]
    assert lesions.scores.tolist() == [0.5]
    assert lesions.columns["num_slices"].tolist() == [3]
    assert lesions.columns["extent_mm"].tolist() == [[9.0, 2.0, 1.5]]
    assert slices.columns["lesion"].tolist() == [0, 0, 0]


def test_overlap_is_with_the_last_box_not_the_first():
    # A3 overlaps A by 1/7 but A2 by 0.6
    _, lesions = link(slice_boxes((0, A, 0.5), (1, A1, 0.5), (2, A2, 0.5), (3, A3, 0.5)))
    assert len(lesions) == 1


def test_stray_slice_is_ignored_from_four_slices_on():
    # x1 sorted 4, 4, 4, 5 with equal scores: three of four reach 75 %, so the box that leans out does not count
    _, lesions = link(slice_boxes((0, A, 0.5), (1, A, 0.5), (2, A, 0.5), (3, A1, 0.5)))
    assert lesions.boxes.tolist() == [[0, 0, 0, 4, 4, 4]]


def test_extent_follows_the_scores():
    # weights 0.9 and 0.1, x1: 4 alone holds 90 %; x0 outwards: 1 holds 10 %, 0 all -> 0
    _, lesions = link(slice_boxes((0, A, 0.9), (1, A1, 0.1)))
    assert lesions.boxes[0].tolist() == [0, 0, 0, 2, 4, 4]
    _, lesions = link(slice_boxes((0, A, 0.3), (1, A1, 0.7)))
    # x1: 4 holds 30 %, 5 all -> 5; x0 outwards: 1 holds 70 %, 0 all -> 0
    assert lesions.boxes[0].tolist() == [0, 0, 0, 2, 4, 5]


def test_score_is_the_best_slice_and_best_lesion_comes_first():
    slices, lesions = link(slice_boxes((0, A, 0.2), (1, A, 0.6), (0, FAR, 0.9)))
    assert lesions.scores.tolist() == [0.9, 0.6]
    assert slices.columns["lesion"].tolist() == [1, 1, 0]


@pytest.mark.parametrize(("max_gap", "expected"), [(0, 2), (1, 1), (2, 1)])
def test_gap(max_gap, expected):
    _, lesions = link(slice_boxes((0, A, 0.5), (2, A, 0.5)), max_gap=max_gap)
    assert len(lesions) == expected


def test_gap_counts_empty_slices():
    d = slice_boxes((0, A, 0.5), (3, A, 0.5))
    assert len(link(d, max_gap=1)[1]) == 2
    assert link(d, max_gap=2)[1].boxes.tolist() == [[0, 0, 0, 4, 4, 4]]


def test_threshold_is_inclusive():
    d = slice_boxes((0, A, 0.5), (1, A1, 0.5))
    assert len(link(d, link_iou=12 / 20)[1]) == 1
    assert len(link(d, link_iou=12 / 20 + 1e-9)[1]) == 2


def test_split_best_overlap_continues():
    # A1 overlaps A by 0.6, A2 by 1/3; A2 has the better score but starts a new lesion
    slices, lesions = link(slice_boxes((0, A, 0.5), (1, A2, 0.9), (1, A1, 0.4)), link_iou=0.3)
    assert slices.columns["lesion"].tolist() == [1, 0, 1]
    assert lesions.columns["num_slices"].tolist() == [1, 2]


def test_merge_best_chain_goes_on():
    slices, lesions = link(slice_boxes((0, A, 0.5), (0, A2, 0.4), (1, (0, 0, 4, 5), 0.3)), link_iou=0.3)
    # the last box overlaps A by 16/20 and A2 by 12/24
    assert slices.columns["lesion"].tolist() == [0, 1, 0]
    assert len(lesions) == 2


def test_second_choice_when_the_first_is_taken():
    # both boxes of slice 1 like A best, (A: 1 and 0.6); A1 takes its second choice A2 (0.6, tie goes after A-A)
    slices, _ = link(slice_boxes((0, A, 0.9), (0, A2, 0.8), (1, A, 0.7), (1, A1, 0.6)))
    assert slices.columns["lesion"].tolist() == [0, 1, 0, 1]


def test_equal_overlaps_go_to_the_better_box_and_older_chain():
    slices, _ = link(slice_boxes((0, A, 0.9), (1, A1, 0.4), (1, A1, 0.5)))
    assert slices.columns["lesion"].tolist() == [0, 1, 0]
    # A1 and the mirrored box overlap A1 equally (0.6): the chain of the better box is the older one
    slices, _ = link(slice_boxes((0, A2, 0.3), (0, A, 0.2), (1, A1, 0.1)))
    assert slices.columns["lesion"].tolist() == [0, 1, 0]


def test_labels_do_not_mix():
    _, lesions = link(slice_boxes((0, A, 0.5, 0), (1, A, 0.6, 1)))
    assert lesions.labels.tolist() == [1, 0]


def test_no_boxes():
    slices, lesions = link(slice_boxes())
    assert lesions.boxes.shape == (0, 6)
    assert lesions.columns["extent_mm"].shape == (0, 3)
    assert len(slices.columns["lesion"]) == 0


def test_refuses_3d():
    with pytest.raises(ValueError, match="2D detections with the column 'slice'"):
        link(Detections.empty(3, {"slice": np.zeros(0)}))


@given(random_slice_boxes(distinct_scores=False), st.sampled_from([0.1, 0.4, 0.8]), st.integers(0, 2))
def test_lesions_partition_the_boxes(d, iou, max_gap):
    slices, lesions = link(d, iou, max_gap)
    lesion = slices.columns["lesion"]
    assert np.bincount(lesion, minlength=len(lesions)).tolist() == lesions.columns["num_slices"].tolist()
    for index in range(len(lesions)):
        of = slices.select(lesion == index)
        at = of.columns["slice"]
        assert len(set(at.tolist())) == len(at)  # one box per slice
        assert set(of.labels.tolist()) == {lesions.labels[index]}
        assert lesions.scores[index] == of.scores.max()
        box = lesions.boxes[index]
        assert [box[0], box[3]] == [at.min(), at.max() + 1]
        assert (box[[1, 2]] >= of.boxes[:, :2].min(0)).all()  # inside the hull
        assert (box[[4, 5]] <= of.boxes[:, 2:].max(0)).all()
        assert (box[3:] > box[:3]).all()
        assert (np.diff(np.sort(at)) <= max_gap + 1).all()


@given(random_slice_boxes(distinct_scores=False), st.integers(0, 99))
def test_order_of_rows_does_not_matter(d, seed):
    _, lesions = link(d, 0.3, 1)
    _, again = link(shuffled(d, seed), 0.3, 1)
    assert lesions.boxes.tolist() == again.boxes.tolist()
    assert lesions.scores.tolist() == again.scores.tolist()
    assert lesions.columns["num_slices"].tolist() == again.columns["num_slices"].tolist()
