"""ResNet + FPN from torchvision with any number of input channels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights, list_models
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import ResNet
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from nndet_psma.core.errors import UserError
from nndet_psma.systems.psma25d.plan import Detector
from nndet_psma.trainers.networks.norms import FrozenBatchNorm
from nndet_psma.trainers.networks.weights import check_finite, read_state

_PARTS = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
_GROUP_NORM_CHANNELS_PER_GROUP = 8
_OWN_PREFIX = "backbone.body."  # of the detectors that a stage writes


def build_backbone(detector: Detector, channels: int) -> BackboneWithFPN:
    """Feature pyramid over the planned ResNet layers.

    Args:
        detector: backbone, weights, norm, levels and fpn_channels are used.
        channels: input channels.

    Raises:
        UserError: unknown backbone, or weights that cannot be had or do not fit.
    """
    body = _build_resnet(detector)
    body.conv1 = widen_input(body.conv1, channels)
    in_channels = [_block_width(getattr(body, f"layer{level}")[-1]) for level in detector.levels]
    return_layers = {f"layer{level}": str(i) for i, level in enumerate(detector.levels)}
    frozen = [body.get_submodule(name) for part in _PARTS[: detector.frozen_layers] for name in part]
    for parameter in body.parameters():
        parameter.requires_grad_(True)
    for module in frozen:
        module.requires_grad_(False)
    return BackboneWithFPN(
        body, return_layers, in_channels, detector.fpn_channels, extra_blocks=_NoExtraLevels()
    )


def widen_input(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
    """A first convolution for ``channels`` inputs whose response to grey slices equals that of ``conv``.

    The filters are averaged over their input channels, repeated and divided by the number of channels times three,
    so that identical slices in all channels give the response that a grey RGB picture gave before.
    """
    if conv.in_channels == channels:
        return conv
    widened = nn.Conv2d(
        channels,
        conv.out_channels,
        kernel_size=conv.kernel_size,  # type: ignore[arg-type]
        stride=conv.stride,  # type: ignore[arg-type]
        padding=conv.padding,  # type: ignore[arg-type]
        bias=conv.bias is not None,
    )
    with torch.no_grad():
        mean = conv.weight.mean(dim=1, keepdim=True)
        widened.weight.copy_(mean.expand_as(widened.weight) * conv.in_channels / channels)
        if conv.bias is not None and widened.bias is not None:
            widened.bias.copy_(conv.bias)
    return widened


class _NoExtraLevels(ExtraFPNBlock):
    """Stands in torchvision's place for the extra pooled level, which small lesions never use."""

    def forward(
        self, results: list[Tensor], _: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        return results, names


def _build_resnet(detector: Detector) -> ResNet:
    known = [name for name in list_models() if name.startswith(("resnet", "resnext", "wide_resnet"))]
    if detector.backbone not in known:
        raise UserError(f"unknown backbone '{detector.backbone}'", expected=f"one of {', '.join(known)}")
    weights = _imagenet_weights(detector) if detector.weights == "imagenet" else None
    body: ResNet = get_model(detector.backbone, weights=None, norm_layer=_norm_layer(detector.norm))
    if weights is not None:
        body.load_state_dict(weights, strict=False)
    elif detector.weights != "none":
        _load_backbone_file(body, Path(detector.weights))
    return body


def _imagenet_weights(detector: Detector) -> dict[str, Tensor]:
    entry = get_model_weights(detector.backbone).DEFAULT
    try:
        return dict(entry.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"ImageNet weights of {detector.backbone} cannot be downloaded ({error})",
            remedy=(
                f"Fetch {entry.url} on a machine with network, and give its path as "
                "-o +plan_overwrites.detector.weights=PATH, or train from scratch with "
                "-o +plan_overwrites.detector.weights=none"
            ),
        ) from None


def _load_backbone_file(body: nn.Module, file: Path) -> None:
    state = read_state(file)
    if any(name.startswith(_OWN_PREFIX) for name in state):
        raise UserError(
            "holds a whole detector, not a backbone",
            file=file,
            remedy="Start from it with -o trainer_cfg.start_weights=PATH",
        )
    own = body.state_dict()
    wrong = [
        f"{name} {list(state[name].shape)} instead of {list(own[name].shape)}"
        for name in state
        if name in own and own[name].shape != state[name].shape and not name.startswith("fc.")
    ]
    if wrong:
        raise UserError(
            "weights do not fit the backbone",
            file=file,
            found="; ".join(wrong[:3]),
            remedy="Give weights of the same architecture",
        )
    matching = {name: tensor for name, tensor in state.items() if name in own and not name.startswith("fc.")}
    if len(matching) < len(own) // 2:
        raise UserError(
            "holds hardly any layer of the backbone",
            file=file,
            found=f"{len(matching)} of {len(own)} tensors",
            remedy="Give weights of the same architecture",
        )
    check_finite(matching, file)
    body.load_state_dict(matching, strict=False)


def _norm_layer(norm: str) -> Callable[..., nn.Module]:
    if norm == "frozen":
        return FrozenBatchNorm
    if norm == "group":
        return partial(_group_norm)
    return nn.BatchNorm2d


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, channels // _GROUP_NORM_CHANNELS_PER_GROUP), channels)


def _block_width(block: nn.Module) -> int:
    convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    return max(conv.out_channels for conv in convolutions)
