import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from postproc_cases import (
    A1,
    A2,
    A3,
    FAR,
    A,
    compete,
    random_slice_boxes,
    same,
    shuffled,
    slice_boxes,
    slow_iou,
)

from nndet_psma.boxes.clustering import nms, weighted_box_clustering
from nndet_psma.boxes.detections import Detections


def slow_nms(d, iou):
    kept = []
    for i in sorted(range(len(d)), key=lambda i: -d.scores[i]):
        if not any(compete(d, i, j) and slow_iou(d.boxes[i], d.boxes[j]) > iou for j in kept):
            kept.append(i)
    return kept


def slow_clustering(parts, iou):
    """(box, score) of each cluster, straight from the definition, by recursion on the best free box."""
    free = [(p, i) for p, part in enumerate(parts) for i in range(len(part))]
    free.sort(key=lambda pi: -parts[pi[0]].scores[pi[1]])
    fused = []
    while free:
        seed_part, seed = free[0]
        members = []
        for p, i in free:
            d = Detections.concatenate([parts[seed_part].select([seed]), parts[p].select([i])])
            joins = compete(d, 0, 1) and slow_iou(d.boxes[0], d.boxes[1]) >= iou
            if joins or (p, i) == (seed_part, seed):
                members.append((p, i))
        free = [pi for pi in free if pi not in members]
        say = {}
        for p, i in members:
            say.setdefault(p, i)
        scores = [parts[p].scores[i] for p, i in say.items()]
        box = sum(s * parts[p].boxes[i] for s, (p, i) in zip(scores, say.items(), strict=True)) / sum(scores)
        fused.append((sum(scores) / len(parts), *box))
    return sorted(fused, reverse=True)


class TestNms:
    def test_keeps_the_best_of_overlapping_boxes(self):
        # A1 (IoU 0.6 with A) goes; A3 overlaps A by 1/7 only, its IoU 1/3 with A1 does not matter: A1 is gone
        d = slice_boxes((0, A1, 0.8), (0, A, 0.9), (0, A3, 0.7))
        kept = nms(d, 0.5)
        assert kept.scores.tolist() == [0.9, 0.7]
        assert kept.boxes.tolist() == [list(A), list(A3)]

    def test_a_suppressed_box_suppresses_nothing(self):
        # A2 overlaps A by 1/3 and A1 by 0.6; A1 falls to A, so A2 stays
        d = slice_boxes((0, A, 0.9), (0, A1, 0.8), (0, A2, 0.7))
        assert nms(d, 0.5).scores.tolist() == [0.9, 0.7]

    def test_threshold_is_exclusive(self):
        d = slice_boxes((0, A, 0.9), (0, A1, 0.8))
        assert len(nms(d, 12 / 20)) == 2
        assert len(nms(d, 12 / 20 - 1e-9)) == 1

    def test_identical_boxes_survive_at_one(self):
        assert len(nms(slice_boxes((0, A, 0.9), (0, A, 0.8)), 1.0)) == 2

    def test_other_slices_and_labels_do_not_compete(self):
        d = slice_boxes((0, A, 0.9), (1, A, 0.8), (0, A, 0.7, 1), (0, A, 0.6))
        assert nms(d, 0.5).scores.tolist() == [0.9, 0.8, 0.7]

    def test_equal_scores_keep_the_earlier_row(self):
        d = slice_boxes((0, A1, 0.5), (0, A, 0.5))
        assert nms(d, 0.5).boxes.tolist() == [list(A1)]

    def test_3d(self):
        # two unit-height cubes shifted by one in z overlap by 1/3 when 2 high
        d = Detections.build([(0, 0, 0, 2, 4, 4), (1, 0, 0, 3, 4, 4), (9, 0, 0, 11, 4, 4)], [0.5, 0.9, 0.1])
        assert nms(d, 0.3).scores.tolist() == [0.9, 0.1]
        assert nms(d, 0.4).scores.tolist() == [0.9, 0.5, 0.1]

    def test_no_boxes(self):
        assert len(nms(Detections.empty(2), 0.5)) == 0
        assert len(nms(Detections.empty(3), 0.5)) == 0

    def test_slice_column_is_required(self):
        with pytest.raises(ValueError, match="column 'slice'"):
            nms(Detections.build([A], [0.5], dim=2), 0.5)

    @given(random_slice_boxes(distinct_scores=False), st.sampled_from([0.0, 0.2, 1 / 3, 0.5, 0.9]))
    def test_agrees_with_slow_reference(self, d, iou):
        assert same(nms(d, iou), d.select(np.array(slow_nms(d, iou), dtype=int)))

    @given(random_slice_boxes(), st.floats(0, 1), st.integers(0, 99))
    def test_order_of_rows_does_not_matter_and_twice_is_once(self, d, iou, seed):
        once = nms(d, iou)
        assert same(once, nms(shuffled(d, seed), iou))
        assert same(once, nms(once, iou))

    @given(random_slice_boxes(), st.floats(0, 1), st.floats(0, 1))
    def test_commutes_with_a_score_threshold(self, d, iou, threshold):
        # the sweep rests on this
        kept = nms(d, iou)
        assert same(kept.select(kept.scores >= threshold), nms(d.select(d.scores >= threshold), iou))


class TestWeightedBoxClustering:
    def test_two_folds_agree(self):
        # box x0: (0.9 * 0 + 0.6 * 1) / 1.5 = 0.4; score (0.9 + 0.6) / 2
        first = slice_boxes((3, A, 0.9), zone_mm=[1.0])
        second = slice_boxes((3, A1, 0.6), zone_mm=[2.0])
        fused = weighted_box_clustering([second, first], iou=0.5)
        np.testing.assert_allclose(fused.boxes, [[0, 0.4, 4, 4.4]])
        assert fused.scores.tolist() == [0.75]
        assert fused.columns["zone_mm"].tolist() == [1.0]
        assert fused.columns["slice"].tolist() == [3]

    def test_a_part_without_the_box_counts_zero(self):
        parts = [slice_boxes((0, A, 0.9)), slice_boxes((0, FAR, 0.3)), Detections.empty(2)]
        fused = weighted_box_clustering(parts, iou=0.5)
        np.testing.assert_allclose(fused.scores, [0.3, 0.1])

    def test_only_the_best_box_of_a_part_has_a_say(self):
        # part 0's A1 and A2 both overlap the seed A of part 1 at 1/3: only A1 (0.6) counts
        parts = [slice_boxes((0, A2, 0.2), (0, A1, 0.6)), slice_boxes((0, A, 0.9))]
        fused = weighted_box_clustering(parts, iou=1 / 3)
        np.testing.assert_allclose(fused.boxes, [[0, 0.4, 4, 4.4]])
        assert fused.scores.tolist() == [0.75]

    def test_weighted_by_overlap(self):
        # IoU of A1 with the seed A is 0.6: weights 0.9 * 1 and 0.6 * 0.6; of three folds one is missing:
        # score (0.9 + 0.36) / (1.6 + 1 * 1.6 / 2) = 1.26 / 2.4; x0 (0.9 * 0 + 0.36 * 1) / 1.26
        parts = [slice_boxes((0, A1, 0.6)), slice_boxes((0, A, 0.9)), Detections.empty(2)]
        fused = weighted_box_clustering(parts, iou=0.5, missing="overlap")
        np.testing.assert_allclose(fused.scores, [0.525])
        np.testing.assert_allclose(fused.boxes[0, 1], 2 / 7)

    def test_weights_of_identical_boxes_are_one(self):
        parts = [slice_boxes((0, A, 0.9), (0, FAR, 0.5)), slice_boxes((0, A, 0.3))]
        by_overlap = weighted_box_clustering(parts, iou=0.5, missing="overlap")
        assert same(by_overlap, weighted_box_clustering(parts, iou=0.5))
        nothing = weighted_box_clustering([Detections.empty(3)] * 2, iou=0.5, missing="overlap")
        assert (len(nothing), nothing.dim) == (0, 3)

    def test_threshold_is_inclusive(self):
        parts = [slice_boxes((0, A, 0.9)), slice_boxes((0, A1, 0.6))]
        assert len(weighted_box_clustering(parts, iou=12 / 20)) == 1
        assert len(weighted_box_clustering(parts, iou=12 / 20 + 1e-9)) == 2

    def test_identical_boxes_stay_exact(self):
        box = (0.1, 0.2, 7.3, 9.7)
        parts = [slice_boxes((0, box, s)) for s in (0.9, 0.7, 0.31)]
        assert weighted_box_clustering(parts, iou=1.0).boxes.tolist() == [list(box)]

    def test_zero_scores(self):
        parts = [slice_boxes((0, A, 0.0)), slice_boxes((0, A1, 0.0))]
        assert weighted_box_clustering(parts, iou=0.5).boxes.tolist() == [list(A)]

    def test_all_parts_empty(self):
        assert len(weighted_box_clustering([Detections.empty(2)] * 3, iou=0.5)) == 0

    def test_no_parts(self):
        with pytest.raises(ValueError, match="no parts"):
            weighted_box_clustering([], iou=0.5)

    @given(
        st.lists(random_slice_boxes(max_size=6), min_size=1, max_size=3), st.sampled_from([0.1, 1 / 3, 0.6])
    )
    def test_agrees_with_slow_reference(self, parts, iou):
        fused = weighted_box_clustering(parts, iou=iou)
        ours = sorted(zip(fused.scores, *fused.boxes.T, strict=True), reverse=True)
        # equal fused scores may sort by rounding: compare as rounded, sorted rows
        theirs = slow_clustering(parts, iou)
        round_rows = lambda rows: sorted(tuple(np.round(row, 9) + 0.0) for row in rows)  # noqa: E731
        np.testing.assert_allclose(round_rows(ours), round_rows(theirs), atol=1e-8)

    @given(random_slice_boxes(), st.sampled_from([0.25, 0.55, 0.77]))
    def test_one_part_is_suppression(self, d, iou):
        assert same(weighted_box_clustering([d], iou=iou), nms(d, iou - 1e-9))
