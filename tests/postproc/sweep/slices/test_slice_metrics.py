import numpy as np
from postproc_cases import A1, A3, FAR, A, slice_boxes

from nndet_psma.postproc.sweep.slices.metrics import Hits, RankedBoxes, find_hits


def test_hits_need_slice_label_and_overlap():
    truth = slice_boxes((2, A, 1, 0), (3, A, 1, 0), lesion=[1, 1])
    boxes = slice_boxes((2, A1, 0.9), (2, A1, 0.9, 1), (4, A1, 0.9), (2, A3, 0.9), (3, A, 0.5))
    hits = find_hits(boxes, truth, num_lesions=2, hit_iou=12 / 20)
    assert hits.pairs.tolist() == [[0, 4], [1, 1]]
    assert hits.box_hits.tolist() == [True, False, False, False, True]
    assert find_hits(boxes, truth, num_lesions=2, hit_iou=12 / 20 + 1e-9).pairs.tolist() == [[4], [1]]


def test_pooling_numbers_on():
    first = Hits(np.array([[0, 1], [0, 1]]), num_boxes=3, num_lesions=2)
    second = Hits(np.array([[1], [0]]), num_boxes=2, num_lesions=1)
    pooled = Hits.pool([first, second])
    assert pooled.pairs.tolist() == [[0, 1, 4], [0, 1, 2]]
    assert (pooled.num_boxes, pooled.num_lesions) == (5, 3)


def test_metrics_by_hand():
    # two lesions with one slice each, a third never hit. Boxes: 0.9 hits lesion 0, 0.7 misses, 0.5 hits lesion 1
    truth = slice_boxes((0, A, 1), (1, A, 1), lesion=[0, 1])
    boxes = slice_boxes((0, A, 0.9), (0, FAR, 0.7), (1, A, 0.5))
    hits = find_hits(boxes, truth, num_lesions=3, hit_iou=0.5)
    ranked = RankedBoxes(boxes.scores, np.full(3, -np.inf), hits)
    metrics = ranked.metrics(np.ones(3, dtype=bool), np.array([0.0, 0.5, 0.6, 0.9, 1.0]), num_cases=2)
    np.testing.assert_allclose(metrics["sensitivity"], [2 / 3, 2 / 3, 1 / 3, 1 / 3, 0])
    np.testing.assert_allclose(metrics["precision"], [2 / 3, 2 / 3, 1 / 2, 1, 0])  # no boxes counts 0
    np.testing.assert_allclose(metrics["f1"], [2 / 3, 2 / 3, 2 / 5, 1 / 2, 0])
    np.testing.assert_allclose(metrics["fp_per_case"], [0.5, 0.5, 0.5, 0, 0])
    masked = ranked.metrics(np.array([False, True, True]), np.array([0.0]), num_cases=2)
    np.testing.assert_allclose(masked["sensitivity"], [1 / 3])
    np.testing.assert_allclose(masked["precision"], [1 / 2])


def test_a_lesion_hit_on_many_slices_counts_once_and_ranges_end():
    # two stages of one consensus box: it hits for thresholds in (0.4, 0.8], its other stage up to 0.4 misses
    hits = Hits(np.array([[0, 1], [0, 0]]), num_boxes=3, num_lesions=1)
    ranked = RankedBoxes(np.array([0.8, 0.8, 0.4]), np.array([0.4, 0.4, -np.inf]), hits)
    metrics = ranked.metrics(np.ones(3, dtype=bool), np.array([0.4, 0.41, 0.8, 0.81]), num_cases=1)
    np.testing.assert_allclose(metrics["sensitivity"], [0, 1, 1, 0])
    np.testing.assert_allclose(metrics["fp_per_case"], [1, 0, 0, 0])
