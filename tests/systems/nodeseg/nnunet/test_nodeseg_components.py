"""Probabilities to nodes: which voxels belong together, in what order, with what score, class and box."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nndet_psma.systems.nodeseg.nnunet.components import find_nodes, to_detections
from nndet_psma.systems.nodeseg.plan import Candidates

SHAPE = (4, 8, 10)


def probabilities(*classes):
    foreground = np.stack(classes).astype(np.float32)
    return np.concatenate([1 - foreground.sum(axis=0, keepdims=True), foreground])


def empty():
    return np.zeros(SHAPE, dtype=np.float32)


def test_two_nodes_and_a_weak_candidate():
    """A 2x2x2 cube of 0.8, one voxel of 0.9, a voxel of 0.3; a halo of 0.2 round the cube belongs to no candidate."""
    one = empty()
    one[0:3, 0:4, 0:4] = 0.2
    one[1:3, 1:3, 1:3] = 0.8
    one[0, 6, 8] = 0.9
    one[3, 6, 1] = 0.3
    nodes = find_nodes(probabilities(one), Candidates())
    np.testing.assert_allclose(nodes.scores, [0.9, 0.8, 0.3], atol=1e-6)
    assert nodes.boxes.tolist() == [[0, 6, 8, 1, 7, 9], [1, 1, 1, 3, 3, 3], [3, 6, 1, 4, 7, 2]]
    assert nodes.certain.tolist() == [True, True, False]
    assert [int((nodes.ids == number).sum()) for number in (1, 2, 3)] == [1, 8, 1]
    assert nodes.ids[0, 0, 0] == 0  # the halo


def test_weak_voxels_never_join_two_nodes():
    one = empty()
    one[0, 0, :] = 0.2
    one[0, 0, 0] = one[0, 0, 9] = 0.7
    assert len(find_nodes(probabilities(one), Candidates()).boxes) == 2


def test_corners_touch():
    one = empty()
    one[0, 0, 0] = one[1, 1, 1] = 0.6
    assert find_nodes(probabilities(one), Candidates()).boxes.tolist() == [[0, 0, 0, 2, 2, 2]]


@pytest.mark.parametrize(("kind", "expected"), [("max", 1.0), ("mean", 0.75), ("percentile_95", 0.975)])
def test_scores(kind, expected):
    """Two voxels, 0.5 and 1: mean 0.75; the 95 % quantile, interpolated linearly, lies at 0.5 + 0.95 * 0.5 = 0.975."""
    one = empty()
    one[0, 0, 0:2] = 0.5, 1.0
    assert find_nodes(probabilities(one), Candidates(score=kind)).scores[0] == pytest.approx(
        expected, abs=1e-6
    )


def test_the_class_is_the_one_with_the_largest_sum():
    """First class 0.6 + 0.2, second 0.3 + 0.7: the second wins; the voxels are foreground by both together."""
    first, second = empty(), empty()
    first[0, 0, 0:2] = 0.6, 0.2
    second[0, 0, 0:2] = 0.3, 0.7
    nodes = find_nodes(probabilities(first, second), Candidates())
    assert nodes.labels.tolist() == [1]
    assert nodes.scores[0] == pytest.approx(0.9, abs=1e-6)


def test_small_components_are_dropped():
    one = empty()
    one[0, 0, 0] = 0.9
    one[2, 2, 2:5] = 0.6
    nodes = find_nodes(probabilities(one), Candidates(min_voxels=2))
    assert nodes.boxes.tolist() == [[2, 2, 2, 3, 3, 5]]
    assert np.unique(nodes.ids).tolist() == [0, 1]


def test_nothing_found():
    nodes = find_nodes(probabilities(empty()), Candidates())
    assert nodes.boxes.shape == (0, 6)
    assert len(to_detections(nodes, np.zeros(0), None, (0, 0, 0))) == 0


def test_detections_lie_on_the_grid_of_the_whole_image():
    """HU 0..9 along x; the box holds x 2..4, so its median (quantile 0.5) is 3 and its largest 4."""
    one = empty()
    one[1, 1, 2:5] = 0.9
    ct = np.broadcast_to(np.arange(10, dtype=np.int16), SHAPE)
    found = to_detections(find_nodes(probabilities(one), Candidates()), np.array([1.5]), ct, (10, 20, 30))
    assert found.boxes.tolist() == [[11, 21, 32, 12, 22, 35]]
    assert found.columns["zone_mm"].tolist() == [1.5]
    assert found.columns["hu_quantiles"][0, [4, 9]].tolist() == [3.0, 4.0]
    assert "slice" not in found.columns


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["max", "mean", "percentile_95"]))
def test_every_certain_voxel_is_in_exactly_one_node(seed, kind):
    one = np.random.default_rng(seed).random(SHAPE, dtype=np.float32) ** 3
    nodes = find_nodes(probabilities(one), Candidates(score=kind))
    assert ((nodes.ids > 0) | (one < 0.5)).all()
    assert not (nodes.ids[one < 0.1] > 0).any()
    assert sorted(set(np.unique(nodes.ids)) - {0}) == list(range(1, len(nodes.scores) + 1))
    for number, box in enumerate(nodes.boxes.astype(int), start=1):
        where = np.argwhere(nodes.ids == number)
        assert [*where.min(axis=0), *(where.max(axis=0) + 1)] == box.tolist()
        assert (one[nodes.ids == number].max() >= 0.5) == nodes.certain[number - 1]
