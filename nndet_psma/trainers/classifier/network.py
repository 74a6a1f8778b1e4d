"""Networks that classify crops: MONAI's residual network, or 16 convolutions after VGG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nndet_psma.artifacts.classifier_plan import ClassifierPlan
from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.trainers.networks.weights import read_model

VGG_BLOCKS = (2, 2, 4, 4, 4)
"""Convolutions between poolings of VGG-19: Hartenstein et al. 2020 say 16, and not how they are divided."""

_NORMAL = (0.5, 0.25)
"""Mean and standard deviation that are taken off the channels in [0, 1]: about those of soft tissue in its window."""


class CropClassifier(nn.Module):
    """Features of a crop, pooled, and two logits.

    Args:
        plan: network and size of the input.
        stage: windows.
    """

    def __init__(self, plan: ClassifierPlan, stage: Stage) -> None:
        super().__init__()
        channels, size = plan.channels(stage), plan.crop.image_size
        network = plan.network
        if network.kind == "resnet":
            self.trunk = _resnet(channels, len(size), network.widths)
            self.head: nn.Module = nn.Sequential(
                nn.Dropout(network.dropout), nn.Linear(network.widths[-1], 2)
            )
        else:
            self.trunk = _vgg(channels, len(size), network.widths)
            self.head = _fully_connected(network.widths[-1], network.dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[B, 2]`` of images ``[B, C, *size]`` in [0, 1]."""
        mean, std = _NORMAL
        logits: Tensor = self.head(self.trunk((images - mean) / std))
        return logits


def load_classifier(plan: ClassifierPlan, stage: Stage, file: Path, device: torch.device) -> CropClassifier:
    """The trained network of a stage, in evaluation mode.

    Raises:
        UserError: names the layer that is missing, unknown or of another shape.
    """
    model = CropClassifier(plan, stage)
    read_model(model, file)
    return model.to(device).eval()


@torch.inference_mode()
def ask(
    model: nn.Module, images: NDArray[np.float32], device: torch.device, batch_size: int
) -> NDArray[np.float64]:
    """Log odds ``[N]`` of class 1 of images ``[N, C, *size]``; the size of the batches does not matter."""
    found = [np.zeros(0)]
    for start in range(0, len(images), batch_size):
        logits = model(torch.from_numpy(images[start : start + batch_size]).to(device)).double().cpu()
        found.append((logits[:, 1] - logits[:, 0]).numpy())
    return np.concatenate(found)


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """Class-weighted cross entropy, the mean over the images of known class (label 0 or 1, not -1).

    Args:
        logits: ``[B, 2]``.
        labels: ``[B]``.
        weights: ``[2]`` of the classes.
        smoothing: of the labels.
    """
    total = functional.cross_entropy(
        logits.float(), labels, weight=weights, ignore_index=-1, reduction="sum", label_smoothing=smoothing
    )
    return total / (labels >= 0).sum().clamp(min=1)


def _resnet(channels: int, dimensions: int, widths: list[int]) -> nn.Module:
    from monai.networks.nets.resnet import ResNet

    return ResNet(
        "basic", [1, 1, 1, 1], widths, spatial_dims=dimensions, n_input_channels=channels,
        conv1_t_size=3, conv1_t_stride=1, no_max_pool=False, feed_forward=False,
    )  # fmt: skip


def _vgg(channels: int, dimensions: int, widths: list[int]) -> nn.Module:
    from monai.networks.blocks.convolutions import Convolution
    from monai.networks.layers.factories import Pool

    layers: list[nn.Module] = []
    for count, width in zip(VGG_BLOCKS, widths, strict=True):
        for _ in range(count):
            layers.append(Convolution(dimensions, channels, width, act="relu", norm="batch"))
            channels = width
        layers.append(Pool["max", dimensions](2, ceil_mode=True))
    layers += [Pool["adaptiveavg", dimensions](1), nn.Flatten()]
    return nn.Sequential(*layers)


def _fully_connected(width: int, dropout: float) -> nn.Module:
    parts: list[nn.Module] = []
    for _ in range(2):
        parts += [nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*parts, nn.Linear(width, 2))
