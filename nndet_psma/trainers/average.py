"""Exponential moving average of the weights: smoother than the last step, at no cost when predicting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Average of a model's state over the steps, statistics of norms included.

    The decay of step ``n`` (from 1) is ``min(decay, (1 + n) / (10 + n))``, so that a short training does not average
    the weights it started from. Whole numbers (counters) are copied.

    Args:
        model: whose state is averaged; it starts as the average.
        decay: weight of the past in (0, 1), for example 0.999.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the state of ``model`` after ``step`` steps (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        present = model.state_dict()
        names = [name for name in self.state if self.state[name].is_floating_point()]
        averages = [self.state[name] for name in names]
        torch._foreach_lerp_(averages, [present[name] for name in names], 1 - decay)
        for name in self.state.keys() - set(names):
            self.state[name].copy_(present[name])

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Make the average the model's state."""
        for name, tensor in model.state_dict().items():
            tensor.copy_(self.state[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """``model`` has the averaged weights while the block runs, and its own again afterwards."""
        with torch.no_grad():
            self._swap(model)
            try:
                yield
            finally:
                self._swap(model)

    def _swap(self, model: nn.Module) -> None:
        for name, tensor in model.state_dict().items():
            own: Tensor = tensor.clone()
            tensor.copy_(self.state[name])
            self.state[name].copy_(own)
