"""Normalisation layers that torchvision and PyTorch lack: frozen without widening, and shared on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_EPSILON = 1e-5
_STATE = ("weight", "bias", "running_mean", "running_var")


class FrozenBatchNorm(nn.Module):
    """Batch normalisation with constant statistics and affine parameters; the output has the type of the input.

    Its state has the names of torchvision's ``FrozenBatchNorm2d``, whose 32 bit buffers widen 16 bit activations
    under autocast: every following layer would keep them twice. Here scale and shift are computed in 32 bit and
    rounded once.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor
        self.running_mean: Tensor
        self.running_var: Tensor
        for name in _STATE:
            values = torch.ones(channels) if name in ("weight", "running_var") else torch.zeros(channels)
            self.register_buffer(name, values)
        self._kept: tuple[Any, Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[B, C, H, W]``."""
        scale, shift = self._affine(x)
        return torch.addcmul(shift, x, scale)

    def _affine(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift ``[1, C, 1, 1]`` in the type of ``x``, kept until a buffer changes."""
        if torch.compiler.is_compiling():
            return self._compute(x.dtype)
        key = (x.dtype, x.device, *((id(b), b._version) for b in self.buffers()))
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, *self._compute(x.dtype))
        return self._kept[1], self._kept[2]

    @torch.no_grad()
    def _compute(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        scale = self.weight.float() * (self.running_var.float() + _EPSILON).rsqrt()
        shift = self.bias.float() - self.running_mean.float() * scale
        return scale.to(dtype).reshape(1, -1, 1, 1), shift.to(dtype).reshape(1, -1, 1, 1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenBatchNorm:
        self._kept = None
        applied: FrozenBatchNorm = super()._apply(fn, recurse)
        return applied

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.pop(
            f"{prefix}num_batches_tracked", None
        )  # weights of a trained norm have it, and it says nothing
        self._kept = None
        super()._load_from_state_dict(state_dict, prefix, *args)


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the images of all processes; PyTorch's own works on GPUs only."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[B, C, H, W]``; in training every process must call it."""
        if not self.training:
            return super().forward(x)
        count = torch.full((1,), float(x.numel() // x.shape[1]), dtype=x.dtype, device=x.device)
        total = _sum_over_processes(torch.cat([x.sum(dim=(0, 2, 3)), count]))
        count = total[-1].detach()
        mean = total[:-1] / count
        centred = x - mean.reshape(1, -1, 1, 1)
        variance = _sum_over_processes(centred.square().sum(dim=(0, 2, 3))) / count
        self._track(mean.detach(), variance.detach(), count)
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        momentum = 0.1 if self.momentum is None else self.momentum
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (count / (count - 1).clamp(min=1)), momentum)


def share_statistics(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with its trained batch norms computed over all processes; parameters and their names stay."""
    if device.type == "cuda":
        shared: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return shared
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm
    return model


class _SumOverProcesses(torch.autograd.Function):
    """Sum over processes; as every process uses the sum, its gradient is the sum of theirs."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return _all_reduced(x)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return _all_reduced(gradients[0])


def _sum_over_processes(x: Tensor) -> Tensor:
    summed: Tensor = _SumOverProcesses.apply(x)
    return summed


def _all_reduced(x: Tensor) -> Tensor:
    copy = x.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(copy)
    return copy
