"""Boxes drawn per image: counts as torchvision's sampler, and draws that do not depend on who computes the image."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from nndet_psma.trainers.networks.sampling import BoxSampler, seed_samplers

LABELS = st.lists(st.lists(st.sampled_from([-1, 0, 1, 2]), min_size=1, max_size=30), min_size=1, max_size=4)


def _begun(sampler, seed, images):
    sampler.begin(seed, images)
    return sampler


@given(LABELS, st.integers(1, 20), st.sampled_from([0.25, 0.5, 1.0]))
def test_counts_are_torchvisions(labels, size, share):
    matched = [torch.tensor(one, dtype=torch.float32) for one in labels]
    sampler = BoxSampler(size, share, stream=0)
    mine = _begun(sampler, 1, range(len(matched)))(matched)
    theirs = BalancedPositiveNegativeSampler(size, share)(matched)
    for own, reference, wanted in zip(mine, theirs, ("positive", "negative"), strict=True):
        assert [int(m.sum()) for m in own] == [int(m.sum()) for m in reference]
        for mask, one in zip(own, matched, strict=True):
            assert all((one[mask.bool()] >= 1) if wanted == "positive" else (one[mask.bool()] == 0))
    assert sampler.positives == sum(int(m.sum()) for m in mine[0])
    assert sampler.drawn == sampler.positives + sum(int(m.sum()) for m in mine[1])


def test_draw_belongs_to_seed_and_image():
    labels = [torch.zeros(200) for _ in range(4)]
    sampler = BoxSampler(20, 0.5, stream=0)
    whole = _begun(sampler, 7, range(4))(labels)[1]
    torch.rand(5)  # other draws of the process do not matter
    for images in ([0, 2], [1, 3]):
        part = _begun(sampler, 7, images)([labels[i] for i in images])[1]
        assert all(torch.equal(mask, whole[i]) for mask, i in zip(part, images, strict=True))
    others = [
        *whole,
        _begun(sampler, 8, [0])(labels[:1])[1][0],
        _begun(BoxSampler(20, 0.5, stream=1), 7, [0])(labels[:1])[1][0],
    ]
    assert len({tuple(mask.tolist()) for mask in others}) == len(others)


def test_without_seed_the_process_draws():
    sampler, labels = BoxSampler(5, 0.5, stream=0), [torch.zeros(100)]
    torch.manual_seed(0)
    first = sampler(labels)[1][0]
    assert not torch.equal(first, sampler(labels)[1][0])
    torch.manual_seed(0)
    assert torch.equal(first, sampler(labels)[1][0])


def test_seeds_are_for_one_call():
    sampler, labels = BoxSampler(5, 0.5, stream=0), [torch.zeros(100)]
    seed_samplers(torch.nn.Sequential(sampler), 3, [0])
    first = sampler(labels)[1][0]
    assert not torch.equal(first, sampler(labels)[1][0])
    sampler.begin(3, [0, 1])
    with pytest.raises(ValueError, match="1 images, but seeds for 2"):
        sampler(labels)
