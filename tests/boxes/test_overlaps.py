"""Overlapping pairs against comparing every box with every other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from postproc_cases import slow_iou

from nndet_psma.boxes import overlaps
from nndet_psma.boxes.clustering import greedy_seeds
from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.overlaps import overlapping_pairs


def slow_pairs(boxes, group, iou, inclusive):
    pairs = []
    for i in range(len(boxes)):
        for j in range(i + 1, len(boxes)):
            overlap = slow_iou(boxes[i], boxes[j])
            enough = overlap >= iou if inclusive else overlap > iou
            if group[i] == group[j] and overlap > 0 and enough:
                pairs.append([i, j])
    return pairs


@st.composite
def grouped_boxes(draw):
    dim = draw(st.sampled_from([2, 3]))
    edge = st.integers(0, 12)
    row = st.tuples(*[edge] * dim, *[st.integers(0, 9)] * dim, st.integers(0, 2))  # sides of 0: empty boxes
    rows = np.array(draw(st.lists(row, max_size=14)), dtype=float).reshape(-1, 2 * dim + 1)
    lower, side = rows[:, :dim], rows[:, dim : 2 * dim]
    return np.hstack([lower, lower + side]), rows[:, -1].astype(int)


@given(grouped_boxes(), st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 0.6, 1.0]), st.booleans())
def test_agrees_with_every_pair(case, iou, inclusive):
    boxes, group = case
    found = overlapping_pairs(boxes, group, iou, inclusive=inclusive)
    assert found.tolist() == slow_pairs(boxes, group, iou, inclusive)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("strips", [True, False])
def test_many_boxes_in_strips_and_portions(dim, strips, monkeypatch):
    """Heaps, one box as large as the image, an empty one; portions of 500 candidates."""
    monkeypatch.setattr(overlaps, "_CHUNK", 500)
    monkeypatch.setattr(overlaps, "_MANY", 0 if strips else np.inf)
    rng = np.random.default_rng(dim)
    centre = rng.uniform(0, 100, (12, dim))[rng.integers(0, 12, 150)] + rng.normal(0, 3, (150, dim))
    side = rng.uniform(1, 20, (150, dim))
    boxes = np.vstack([np.hstack([centre - side / 2, centre + side / 2]), [[-200] * dim + [300] * dim]])
    boxes = np.vstack([boxes, [[5] * (2 * dim)]])
    group = rng.integers(0, 2, len(boxes))
    found = overlapping_pairs(boxes, group, 0.2, inclusive=False)
    assert found.tolist() == slow_pairs(boxes, group, 0.2, False)
    assert len(found) > 40


def test_no_boxes():
    assert overlapping_pairs(np.zeros((0, 6)), np.zeros(0, dtype=int), 0.5, inclusive=True).shape == (0, 2)


def test_a_seed_that_was_claimed_claims_nothing():
    # each overlaps its neighbour by 0.6: the first takes the second, so the third is free and takes the fourth
    chain = Detections.build([(0, x, 4, x + 4) for x in range(4)], [0.9, 0.8, 0.7, 0.6], dim=2, slice=[0] * 4)
    assert greedy_seeds(chain, 0.5, inclusive=True).tolist() == [0, 0, 2, 2]
