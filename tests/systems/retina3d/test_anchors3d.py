"""Anchors, matching, sampling and box losses of the 3D detector: by hand, and against slow references."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_detector3d import SMALL

from nndet_psma.boxes.box import box_centres, pairwise_iou
from nndet_psma.systems.retina3d.anchors import (
    AnchorGrid,
    AnchorMatcher,
    HardNegativeSampler,
    decode_boxes,
    giou_loss,
)
from nndet_psma.trainers.networks.sampling import seed_samplers

CPU = torch.device("cpu")


def test_anchors_by_hand():
    """Level 1 has strides (1, 2, 2): its second cell along x is centred on (0.5, 1, 3)."""
    fine, coarse = AnchorGrid(SMALL)([(2, 2, 2), (1, 1, 1)], CPU)
    assert fine.shape == (16, 6)
    assert fine[0].tolist() == [-0.5, -1, -1, 1.5, 3, 3]  # 2 x 4 x 4 round (0.5, 1, 1)
    assert fine[1].tolist() == [-1, -2, -2, 2, 4, 4]  # the second shape of the same cell
    assert fine[2].tolist() == [-0.5, -1, 1, 1.5, 3, 5]  # x runs first
    assert fine[8].tolist() == [0.5, -1, -1, 2.5, 3, 3]  # z last
    assert coarse[0].tolist() == [-1, -2.5, -2.5, 3, 6.5, 6.5]  # strides (2, 4, 4): centre (1, 2, 2)


def test_thin_and_odd_anchors_are_exact():
    """MONAI rounds half extents, which makes a one-slice anchor 0 thick."""
    thin = replace(SMALL, anchor_shapes=[[(1.0, 3.0, 5.0)], [(1.0, 4.5, 7.0)]])
    for level, sides in zip(
        AnchorGrid(thin)([(1, 1, 1), (1, 1, 1)], CPU), ((1, 3, 5), (1, 4.5, 7)), strict=True
    ):
        assert (level[0, 3:] - level[0, :3]).tolist() == list(sides)


def test_other_grids_get_other_anchors():
    grid = AnchorGrid(SMALL)
    first = grid([(1, 1, 1), (1, 1, 1)], CPU)
    assert grid([(1, 1, 1), (1, 1, 1)], CPU) is first
    assert len(grid([(1, 2, 1), (1, 1, 1)], CPU)[0]) == 4


def _slow_atss(boxes, levels, candidates, per_cell):
    """Zhang et al. 2020, algorithm 1, without the condition on centres, one lesion after the other."""
    anchors = np.concatenate(levels)
    best = np.full(len(anchors), -1)
    best_iou = np.full(len(anchors), -np.inf)
    starts = np.cumsum([0, *(len(level) for level in levels)])
    for row, box in enumerate(boxes):
        chosen = []
        for start, level in zip(starts, levels, strict=False):
            away = np.linalg.norm(box_centres(level) - box_centres(box[None]), axis=1)
            count = min(candidates * per_cell, len(level) // per_cell)
            chosen += (start + np.argsort(away, kind="stable")[:count]).tolist()
        ious = pairwise_iou(box[None], anchors[chosen])[0]
        for anchor, iou in zip(chosen, ious, strict=True):
            if iou >= ious.mean() + ious.std(ddof=1) - 1e-9 and iou > best_iou[anchor]:
                best[anchor], best_iou[anchor] = row, iou
    return best


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.floats(0.1, 4), *[st.floats(0.1, 20)] * 2, st.floats(1, 4), *[st.floats(3, 12)] * 2]),
        min_size=1,
        max_size=3,
    )
)
def test_matching_is_atss(rows):
    """Irregular places, so that no two anchors are equally far; one shape per cell for the same reason."""
    table = np.array(rows) + np.linspace(0, 0.0137, 6)
    boxes = np.concatenate([table[:, :3], table[:, :3] + table[:, 3:]], axis=1)
    detector = replace(SMALL, anchor_shapes=[shapes[:1] for shapes in SMALL.anchor_shapes])
    anchors = AnchorGrid(detector)([(8, 16, 16), (4, 8, 8)], CPU)
    found = AnchorMatcher(4).lesions(torch.from_numpy(boxes), anchors, 1).numpy()
    wanted = _slow_atss(boxes, [level.numpy().astype(float) for level in anchors], 4, 1)
    # float32 decides ties of distance and IoU anew; nearly all boxes have none
    assert (found != wanted).sum() <= 1
    assert set(found.tolist()) <= set(range(-1, len(boxes)))


def test_every_lesion_has_an_anchor_and_nothing_has_none():
    anchors = AnchorGrid(SMALL)([(8, 16, 16), (4, 8, 8)], CPU)
    boxes = torch.tensor([[2.0, 3, 4, 4, 7, 8], [5, 20, 20, 8, 29, 29]])
    matched = AnchorMatcher(4).lesions(boxes, anchors, 2)
    assert set(matched.tolist()) == {-1, 0, 1}
    assert (AnchorMatcher(4).lesions(torch.zeros(0, 6), anchors, 2) == -1).all()


def _drawn(sampler, labels, hardness, seed=None, images=(0,)):
    if seed is not None:
        seed_samplers(sampler, seed, images)
    return sampler.draw([labels] * len(images), [hardness] * len(images))


def test_negatives_are_hard_and_in_proportion():
    """12 anchors a patch, a third positive: at most 4, and 2 negatives for each, from the 8 * 3 hardest."""
    sampler = HardNegativeSampler(12, 1 / 3, pool=3)
    labels = torch.full((1000,), -1)
    labels[:10] = 0
    hardness = torch.arange(1000.0)
    seen = set()
    for seed in range(30):
        ((positive, negative),) = _drawn(sampler, labels, hardness, seed)
        assert (len(positive), len(negative)) == (4, 8)
        assert set(positive.tolist()) <= set(range(10))
        seen |= set(negative.tolist())
        assert (sampler.positives, sampler.drawn) == (4, 12)
    assert seen == set(range(976, 1000))


def test_a_patch_without_lesion_gives_the_negatives_of_one():
    sampler = HardNegativeSampler(12, 1 / 3, pool=1)
    ((positive, negative),) = _drawn(sampler, torch.full((50,), -1), torch.arange(50.0), 1)
    assert len(positive) == 0
    assert sorted(negative.tolist()) == [48, 49]


def test_draws_belong_to_the_image():
    sampler = HardNegativeSampler(12, 0.5, pool=20)
    labels = torch.full((500,), -1)
    labels[:100] = 2
    hardness = torch.rand(500, generator=torch.Generator().manual_seed(1))
    both = _drawn(sampler, labels, hardness, 5, (0, 1))
    alone = _drawn(sampler, labels, hardness, 5, (1,))
    torch.manual_seed(99)  # the global stream does not matter
    for first, second in zip(both[1], alone[0], strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(both[0][0], both[1][0])
    seed_samplers(sampler, 1, [0, 1])
    with pytest.raises(ValueError, match="1 images, but seeds for 2"):
        sampler.draw([labels], [hardness])


def test_decoding_by_hand():
    """Centre (5, 5, 5), sides (2, 4, 8): half a side up in z, twice as wide in x."""
    anchor = torch.tensor([[4.0, 3, 1, 6, 7, 9]])
    assert torch.equal(decode_boxes(torch.zeros(1, 6), anchor), anchor)
    moved = decode_boxes(torch.tensor([[0.5, 0, 0, 0, 0, np.log(2)]]), anchor)
    torch.testing.assert_close(moved, torch.tensor([[5.0, 3, -3, 7, 7, 13]]))


def test_giou_by_hand():
    """Unit cubes one apart: IoU 0, union 2, hull 3, so 1 - (0 - 1/3); the mean with a perfect pair is 2/3."""
    first = torch.tensor([[0.0, 0, 0, 1, 1, 1], [0, 0, 0, 2, 2, 2]], requires_grad=True)
    second = torch.tensor([[2.0, 0, 0, 3, 1, 1], [0, 0, 0, 2, 2, 2]])
    loss = giou_loss(first, second)
    torch.testing.assert_close(loss, torch.tensor(2 / 3))
    loss.backward()
    assert first.grad is not None
    assert torch.isfinite(first.grad).all()


def test_giou_of_nothing_and_of_nonsense():
    none = torch.zeros(3, 6, requires_grad=True)
    loss = giou_loss(none[:0], torch.zeros(0, 6))
    assert loss.item() == 0
    loss.backward()  # the graph is there: other processes wait for these gradients
    assert torch.equal(none.grad, torch.zeros(3, 6))
    assert torch.isnan(giou_loss(torch.full((1, 6), float("nan")), torch.tensor([[0.0, 0, 0, 1, 1, 1]])))
