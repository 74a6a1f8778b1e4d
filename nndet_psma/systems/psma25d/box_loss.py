"""L1 in place of torchvision's smooth L1 for the box coordinates of a two-stage detector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork


def use_l1(model: FasterRCNN) -> None:
    """Change both box losses of ``model`` in place; names of weights and all draws stay.

    torchvision fixes smooth L1 with a bend at 1/9; detectron2's default (``SMOOTH_L1_BETA`` 0) is L1. Both are sums
    over positive boxes, divided by the boxes drawn.
    """
    model.rpn.__class__ = _L1Proposals
    model.roi_heads.__class__ = _L1Heads
    model.roi_heads.box_predictor.register_forward_hook(_remember)


class _L1Proposals(RegionProposalNetwork):
    def compute_loss(
        self, objectness: Tensor, deltas: Tensor, labels: list[Tensor], targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        objectness_loss, _ = super().compute_loss(objectness, deltas, labels, targets)
        sampler: Any = self.fg_bg_sampler
        chosen = torch.cat(sampler.chosen).bool()
        return objectness_loss, _l1(deltas[chosen], torch.cat(targets)[chosen], sampler.drawn)


class _L1Heads(RoIHeads):
    def select_training_samples(self, *args: Any) -> Any:
        sampled = super().select_training_samples(*args)
        self._labels, self._targets = torch.cat(sampled[2]), torch.cat(sampled[3])
        return sampled

    def forward(self, *args: Any) -> Any:
        found, losses = super().forward(*args)
        if self.training:
            positive = torch.where(self._labels > 0)[0]
            deltas: Tensor = self.box_predictor.deltas
            deltas = deltas.reshape(len(deltas), -1, 4)[positive, self._labels[positive]]
            losses["loss_box_reg"] = _l1(deltas, self._targets[positive], len(self._labels))
        self.box_predictor.deltas = None  # holds the graph of the step
        return found, losses


def _remember(predictor: nn.Module, _: Any, output: tuple[Tensor, Tensor]) -> None:
    predictor.deltas = output[1]


def _l1(found: Tensor, wanted: Tensor, drawn: int) -> Tensor:
    return functional.l1_loss(found, wanted, reduction="sum") / max(1, drawn)
