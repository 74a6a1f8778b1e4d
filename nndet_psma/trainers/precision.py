"""Mixed precision: autocast, the scaling of fp16 losses, clipping, and the optimiser's step under them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nndet_psma.core.errors import UserError

PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """How the numbers of a step are represented.

    Args:
        name: "no" (fp32), "bf16" or "fp16"; fp16 losses are scaled so that small gradients do not vanish.
        device: where the step runs.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name, self.device = name, device
        self._dtype = PRECISIONS[name]
        self._scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[Any]:
        """Context of the forward pass."""
        return nullcontext() if self._dtype is None else torch.autocast(self.device.type, self._dtype)

    def step(
        self, loss: Tensor, parameters: Iterable[nn.Parameter], optimizer: Optimizer, clip_norm: float
    ) -> Tensor:
        """Backward pass, clipping and optimiser step; returns the gradient norm before clipping.

        With fp16 a step whose norm is not finite is left out and the scale halved, as PyTorch's scaler does.
        """
        optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
        self._scaler.step(optimizer)
        self._scaler.update()
        return norm

    def skipped(self, norm: float) -> bool:
        """Whether the step of that gradient norm was left out."""
        return self.name == "fp16" and not math.isfinite(norm)

    def state(self) -> dict[str, float]:
        """The scaler's state for a checkpoint; empty without fp16."""
        return {name: float(value) for name, value in self._scaler.state_dict().items()}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from :meth:`state`."""
        if state and self.name == "fp16":
            whole = ("growth_interval", "_growth_tracker")
            self._scaler.load_state_dict({k: int(v) if k in whole else v for k, v in state.items()})


def check_precision(name: str) -> None:
    """UserError when this machine cannot train with that precision."""
    if name == "no":
        return
    if not torch.cuda.is_available():
        raise UserError(
            f"mixed precision {name} needs a GPU", remedy="Leave trainer_cfg.precision at no on CPU"
        )
    if name == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(
            f"{torch.cuda.get_device_name()} does not compute in bf16",
            remedy="Use trainer_cfg.precision=fp16",
        )
