"""Frozen and shared batch normalisation against torchvision's and PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from nndet_psma.trainers.networks.norms import FrozenBatchNorm, share_statistics


def _filled(norm):
    generator = torch.Generator().manual_seed(0)
    for name, tensor in norm.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + (0.5 if "var" in name else 0))
    return norm


def test_frozen_by_hand():
    """weight 2, bias 1, mean 3, variance 4: (x - 3) / 2 * 2 + 1 = x - 2."""
    norm = FrozenBatchNorm(1)
    for name, value in {"weight": 2.0, "bias": 1.0, "running_mean": 3.0, "running_var": 4.0}.items():
        getattr(norm, name).fill_(value)
    torch.testing.assert_close(norm(torch.full((1, 1, 1, 2), 5.0)), torch.full((1, 1, 1, 2), 3.0))


def test_frozen_is_torchvisions_with_its_state():
    reference = _filled(FrozenBatchNorm2d(6))
    norm = FrozenBatchNorm(6)
    norm.load_state_dict(reference.state_dict())
    assert set(norm.state_dict()) == set(reference.state_dict())
    x = torch.randn(2, 6, 5, 4, requires_grad=True)
    torch.testing.assert_close(norm(x), reference(x))
    norm(x).sum().backward()
    first, x.grad = x.grad, None
    reference(x).sum().backward()
    torch.testing.assert_close(first, x.grad)
    norm.load_state_dict(_filled(nn.BatchNorm2d(6)).state_dict())  # with its counter of batches


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_frozen_keeps_type_and_memory_order(dtype, layout):
    norm = _filled(FrozenBatchNorm(6))
    x = torch.randn(2, 6, 5, 4).to(dtype).to(memory_format=layout)
    out = norm(x)
    assert out.dtype == dtype
    assert out.is_contiguous(memory_format=layout)
    torch.testing.assert_close(out.float(), norm(x.float()), rtol=0.02, atol=0.02)


def test_frozen_notices_new_statistics():
    norm, x = FrozenBatchNorm(2), torch.ones(1, 2, 1, 1)
    before = norm(x)
    norm.running_mean.fill_(1.0)
    assert not torch.equal(before, norm(x))
    norm.load_state_dict(FrozenBatchNorm(2).state_dict())
    assert torch.equal(before, norm(x))
    assert norm.double()(x.double()).dtype == torch.float64


@pytest.fixture
def process_group():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_shared_is_batch_norm_on_one_process(process_group):
    """Over two processes: tests/trainers/test_processes.py."""
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), _filled(nn.BatchNorm2d(4)))
    shared = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    shared.load_state_dict(plain.state_dict())
    shared = share_statistics(shared, torch.device("cpu"))
    x = torch.randn(2, 3, 5, 4)
    for _ in range(2):
        weights = torch.randn(2, 4, 5, 4)
        for model in (plain, shared):
            model.zero_grad()
            (model(x) * weights).sum().backward()
        for one, other in zip(plain.parameters(), shared.parameters(), strict=True):
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shared.state_dict(), plain.state_dict())
    torch.testing.assert_close(shared.eval()(x), plain.eval()(x))
