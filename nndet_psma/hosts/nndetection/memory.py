"""Does a network fit? Counted on tensors without content, where nnDetection tries it out on a GPU."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from math import prod
from typing import Any

from nndet_psma.artifacts.plan import Target
from nndet_psma.core.errors import UserError
from nndet_psma.hosts.nndetection.nms import nms_bytes

CPU_BUDGET_GB = 1.0
"""On a CPU memory is plenty and time short: so many GB of activations take about two seconds per step."""

CANDIDATES = 10_000
"""Boxes of an image that nnDetection suppresses (``topk_candidates`` of its v001), one image after the other."""

_SUPPRESSED_DIM = 3  # boxes of slices are suppressed by torchvision
_USABLE_SHARE = 0.92  # as in planners.memory: displays, other processes, the error of this model
_CONTEXT_GB, _FRAGMENTATION = 0.9, 1.1
_WEIGHT_BYTES = 4 * 4  # weights, gradients, momentum, and the average of the last epochs
_ACTIVATION_BYTES = 2  # nnDetection trains with 16 bit; the loss on sampled anchors adds little


class CountingEstimator:
    """Stands in for nnDetection's ``MemoryEstimatorDetection``; neither needs nor touches a GPU.

    Attributes:
        batch_size: set by nnDetection's architecture planner.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.batch_size = 1

    def estimate(
        self,
        min_shape: Sequence[int],
        target_shape: Sequence[int],
        network: Any,
        in_channels: int,
        **_: Any,
    ) -> tuple[int, bool]:
        """Bytes that training on patches of ``target_shape`` (voxels) takes, and whether that fits the target.

        Raises:
            UserError: not even a patch of ``min_shape``, what the strides ask for, fits.
        """
        needed = self._bytes(network, in_channels, [int(n) for n in target_shape])
        fits = needed <= self._budget()
        if not fits and prod(target_shape) <= prod(min_shape):
            raise UserError(
                f"nnDetection's network does not fit {self.target.memory_gb:g} GB, however small the patch",
                found=f"{needed / 1e9:.1f} GB with patches of {'x'.join(str(int(n)) for n in target_shape)}",
                remedy="Plan for a larger GPU with model_cfg.plan_cfg.gpu_memory_gb",
            )
        return needed, fits

    def _budget(self) -> float:
        gb = CPU_BUDGET_GB if self.target.device == "cpu" else _USABLE_SHARE * self.target.memory_gb
        return gb * 1e9

    def _bytes(self, network: Any, channels: int, shape: list[int]) -> int:
        weights: int = _WEIGHT_BYTES * sum(parameter.numel() for parameter in network.parameters())
        kept = activation_count(network, (self.batch_size, channels, *shape))
        if self.target.device == "cpu":
            return weights + 2 * _ACTIVATION_BYTES * kept
        suppression = nms_bytes(CANDIDATES) if len(shape) == _SUPPRESSED_DIM else 0
        return round((weights + _ACTIVATION_BYTES * kept + suppression) * _FRAGMENTATION + _CONTEXT_GB * 1e9)


def activation_count(network: Any, shape: tuple[int, ...]) -> int:
    """Numbers that a forward pass of an input of ``shape`` keeps for backward: what convolutions and norms give out.

    The network runs on torch's "meta" device: shapes are followed, nothing is computed.
    """
    import torch

    counted: list[int] = []
    kinds = (torch.nn.modules.conv._ConvNd, torch.nn.modules.batchnorm._NormBase, torch.nn.GroupNorm)
    hollow = copy.deepcopy(network).to("meta")
    for module in hollow.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda _, __, output: counted.append(output.numel()))
    with torch.no_grad():
        hollow(torch.empty(shape, device="meta"))
    return sum(counted)
