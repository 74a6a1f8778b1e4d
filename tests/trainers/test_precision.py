"""Mixed precision on its own; resumption with a loss scale is in test_loop.py."""

from __future__ import annotations

import pytest
import torch

from nndet_psma.core.errors import UserError
from nndet_psma.trainers.precision import Precision, check_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "dtype"), [("no", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_type_under_autocast(name, dtype):
    with Precision(name, CPU).autocast():
        assert torch.nn.functional.linear(torch.ones(1, 2), torch.ones(3, 2)).dtype == dtype


@pytest.mark.parametrize("name", ["no", "bf16", "fp16"])
def test_step_by_hand(name):
    """Loss 3 w, gradient 3, clipped to 1.5, rate 0.1: w = 2 - 0.15; the norm told is the unscaled, unclipped one."""
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    precision = Precision(name, CPU)
    norm = precision.step((3 * weight).sum(), [weight], optimizer, clip_norm=1.5)
    assert float(norm) == pytest.approx(3.0)
    assert float(weight.detach()) == pytest.approx(1.85, rel=1e-5)
    assert not precision.skipped(float(norm))


def test_fp16_leaves_out_and_halves_the_scale():
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    precision = Precision("fp16", CPU)
    norm = precision.step((weight * float("inf")).sum(), [weight], optimizer, 1.0)
    assert precision.skipped(float(norm))
    assert float(weight.detach()) == 2.0
    assert precision.state()["scale"] == 2.0**15
    again = Precision("fp16", CPU)
    again.restore(precision.state())
    assert again.state() == precision.state()
    assert Precision("bf16", CPU).state() == {}
    assert not Precision("bf16", CPU).skipped(float("inf"))


def test_machine_without_the_precision(monkeypatch):
    check_precision("no")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="mixed precision fp16 needs a GPU"):
        check_precision("fp16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old GPU")
    with pytest.raises(UserError, match=r"Old GPU does not compute in bf16.*precision=fp16"):
        check_precision("bf16")
    check_precision("fp16")
