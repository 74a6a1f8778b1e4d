"""Optimiser and learning rate of a stage."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from nndet_psma.artifacts.detector_plan import Stage

_DROP = 0.1  # at every milestone (Xu et al. 2023, "Model training")
_WARMUP_START = 0.001
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def learning_rate(stage: Stage, step: int) -> float:
    """Rate at ``step`` (from 0): linear warm-up from a thousandth, then a tenth after every milestone."""
    rate = stage.learning_rate * _DROP ** sum(step >= milestone for milestone in stage.milestones)
    if step < stage.warmup:
        rate *= _WARMUP_START + (1 - _WARMUP_START) * step / stage.warmup
    return rate


def build_optimizer(
    model: nn.Module,
    stage: Stage,
    name: str,
    *,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    norm_decay: bool = True,
) -> Optimizer:
    """Optimiser over all trainable parameters.

    Args:
        model: on its device already.
        stage: its learning rate is the first.
        name: "sgd" or "adamw".
        momentum: of SGD.
        weight_decay: of both.
        norm_decay: whether it acts on normalisation layers.
    """
    trainable: Any = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not norm_decay:
        norms = {
            id(p)
            for module in model.modules()
            if isinstance(module, _NORMS)
            for p in module.parameters(recurse=False)
        }
        groups = [p for p in trainable if id(p) not in norms], [p for p in trainable if id(p) in norms]
        trainable = [{"params": groups[0]}, {"params": groups[1], "weight_decay": 0.0}]
    if name == "adamw":
        return torch.optim.AdamW(trainable, lr=stage.learning_rate, weight_decay=weight_decay)
    return torch.optim.SGD(trainable, lr=stage.learning_rate, momentum=momentum, weight_decay=weight_decay)
