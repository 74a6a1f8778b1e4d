"""Encoder, feature pyramid and heads of the one-stage 3D detector."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from dynamic_network_architectures.building_blocks.plain_conv_encoder import (
    PlainConvEncoder,
)
from torch import Tensor, nn
from torch.nn import functional

from nndet_psma.systems.retina3d.plan import Detector3D, Steps

_CONVOLUTIONS_PER_STAGE = 2
_CHANNELS_PER_GROUP = 16
_SLOPE = 0.01  # of the leaky ReLUs
_LOGIT_STD, _DELTA_STD = 0.01, 0.001  # of the weights of predictions
_PRIOR = (
    0.01  # share of anchors that are lesions, so that the first steps do not unlearn all (Lin et al. 2017)
)


class Encoder3D(nn.Module):
    """nnU-Net's plain encoder in the planned strides, kernels and channels.

    Its blocks register every layer twice, which safetensors refuses to write; their layers are taken out once.

    Args:
        detector: the plan of it.
        channels: of the input.
    """

    def __init__(self, detector: Detector3D, channels: int) -> None:
        super().__init__()
        stages = len(detector.strides)
        plain = PlainConvEncoder(
            channels,
            stages,
            list(detector.channels),
            nn.Conv3d,
            list(detector.kernels),
            list(detector.strides),
            [_CONVOLUTIONS_PER_STAGE] * stages,
            conv_bias=True,
            norm_op=nn.InstanceNorm3d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(block.all_modules for block in stage[-1].convs)) for stage in plain.stages
        )
        self.apply(he_start)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of every stage, the finest first, of ``[B, channels, z, y, x]``."""
        features = [images]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features[1:]


class Pyramid3D(nn.Module):
    """Feature pyramid (Lin et al. 2017) over stages whose strides differ by axis.

    Every stage from the coarsest to the finest level takes part, whether or not the heads read it.

    Args:
        detector: channels, kernels, levels and fpn_channels are used.
    """

    def __init__(self, detector: Detector3D) -> None:
        super().__init__()
        self.levels = list(detector.levels)
        self.stages = range(self.levels[0], len(detector.channels))
        width = detector.fpn_channels
        self.lateral = nn.ModuleList(nn.Conv3d(detector.channels[stage], width, 1) for stage in self.stages)
        self.output = nn.ModuleList(
            _convolution(width, width, detector.kernels[level]) for level in self.levels
        )
        self.apply(he_start)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps ``[B, fpn_channels, z, y, x]`` of the levels, the finest first, of the features of all stages."""
        above: Tensor | None = None
        merged: dict[int, Tensor] = {}
        for stage in reversed(self.stages):
            own = self.lateral[stage - self.stages.start](features[stage])
            if above is not None:
                own = own + functional.interpolate(above, size=own.shape[2:], mode="nearest")
            merged[stage] = above = own
        return [convolve(merged[level]) for level, convolve in zip(self.levels, self.output, strict=True)]


class Head(nn.Module):
    """Two convolutions and a prediction, shared by all levels, as nnDetection's heads.

    Args:
        in_channels: of the pyramid.
        channels: between.
        out_channels: values per cell.
        prior: probability that the prediction begins with; None begins with zeros.
    """

    def __init__(
        self, in_channels: int, channels: int, out_channels: int, prior: float | None = None
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(*_normed(in_channels, channels), *_normed(channels, channels))
        self.body.apply(he_start)
        self.prediction = _convolution(channels, out_channels, (3, 3, 3))
        # boxes begin as their anchors (Girshick 2015): GIoU gives a box that vanished no way back
        nn.init.normal_(self.prediction.weight, std=_DELTA_STD if prior is None else _LOGIT_STD)
        bias = 0.0 if prior is None else -math.log((1 - prior) / prior)
        nn.init.constant_(self.prediction.bias, bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """``[B, out_channels, z, y, x]``."""
        predicted: Tensor = self.prediction(self.body(features))
        return predicted


class BoxHeads(nn.Module):
    """Classification and regression of the anchors of every cell.

    Args:
        detector: fpn_channels, head_channels, levels and anchors are used.
        classes: foreground classes.
    """

    def __init__(self, detector: Detector3D, classes: int) -> None:
        super().__init__()
        per_cell = len(detector.anchor_shapes[0])
        width = detector.fpn_channels, detector.head_channels
        self.classes = classes
        self.classification = Head(*width, per_cell * classes, _PRIOR)
        self.regression = Head(*width, per_cell * 6)
        self.scales = nn.Parameter(torch.ones(len(detector.levels)))  # as FCOS and nnDetection: per level

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits ``[B, anchors, classes]`` and deltas ``[B, anchors, 6]`` of every level."""
        logits = [_by_anchor(self.classification(features), self.classes) for features in maps]
        deltas = [
            _by_anchor(self.regression(features) * scale, 6)
            for features, scale in zip(maps, self.scales, strict=True)
        ]
        return logits, deltas


def he_start(module: nn.Module) -> None:
    """Weights of a convolution as He et al. 2015, as nnU-Net begins; PyTorch's own are too small to learn from soon."""
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, a=_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def segmentation_layer(detector: Detector3D) -> nn.Conv3d:
    """Foreground logit of every cell of the finest level, as in Retina U-Net (Jaeger et al. 2018)."""
    layer = nn.Conv3d(detector.fpn_channels, 1, 1)
    nn.init.constant_(layer.bias, -math.log((1 - _PRIOR) / _PRIOR))  # type: ignore[arg-type]
    return layer


def _by_anchor(predicted: Tensor, values: int) -> Tensor:
    """``[B, per_cell * values, z, y, x]`` as ``[B, cells * per_cell, values]``: cell by cell, anchor by anchor."""
    return predicted.permute(0, 2, 3, 4, 1).reshape(predicted.shape[0], -1, values)


def _normed(in_channels: int, channels: int) -> list[nn.Module]:
    groups = max(g for g in range(1, max(1, channels // _CHANNELS_PER_GROUP) + 1) if channels % g == 0)
    return [
        _convolution(in_channels, channels, (3, 3, 3)),
        nn.GroupNorm(groups, channels),
        nn.LeakyReLU(inplace=True),
    ]


def _convolution(in_channels: int, channels: int, kernel: Steps) -> nn.Conv3d:
    return nn.Conv3d(in_channels, channels, kernel, padding=[size // 2 for size in kernel])  # type: ignore[arg-type]
