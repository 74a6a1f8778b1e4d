"""The detector that a stage starts with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.core.errors import UserError
from nndet_psma.systems.psma25d.network import build_detector
from nndet_psma.systems.psma25d.plan import Detector, PSMA25DPlan
from nndet_psma.trainers.networks.weights import load_state, read_model, read_state

_FIRST_CONVOLUTION = "backbone.body.conv1.weight"


def load_detector(plan: PSMA25DPlan, stage: Stage, file: Path, device: torch.device) -> nn.Module:
    """The trained detector of a stage, in evaluation mode.

    Raises:
        UserError: names the layer that is missing, unknown or of another shape.
    """
    model: nn.Module = build_detector(_without_weights(plan), plan.channels(stage), len(plan.classes))
    read_model(model, file)
    return model.to(device).eval()


def starting_detector(plan: PSMA25DPlan, stage: Stage, start: Path | None) -> nn.Module:
    """The stage's detector with the weights it starts from.

    Args:
        plan: of the stage.
        stage: gives the input channels.
        start: weights of another detector; the planned backbone weights (``detector.weights``) when None. A first
            convolution of fewer or more channels is spread over them at equal response to equal slices.

    Raises:
        UserError: weights that do not exist or do not fit.
    """
    channels = plan.channels(stage)
    if start is None:
        _check_frozen(plan.detector)
        model: nn.Module = build_detector(plan.detector, channels, len(plan.classes))
        return model
    model = build_detector(_without_weights(plan), channels, len(plan.classes))
    state = _with_channels(read_state(start), channels)
    load_state(model, state, start)
    return model


def _with_channels(state: Mapping[str, Tensor], channels: int) -> dict[str, Tensor]:
    """The state with its first convolution repeated to ``channels`` inputs."""
    changed = dict(state)
    tensor = changed.get(_FIRST_CONVOLUTION)
    if tensor is not None and tensor.ndim == 4 and tensor.shape[1] != channels:
        mean = tensor.mean(dim=1, keepdim=True) * tensor.shape[1] / channels
        changed[_FIRST_CONVOLUTION] = mean.expand(-1, channels, -1, -1).contiguous()
    return changed


def _check_frozen(detector: Detector) -> None:
    if detector.frozen_layers and detector.weights == "none":
        raise UserError(
            "layers that were never trained would be frozen",
            expected="detector.weights imagenet or a path, or detector.frozen_layers 0",
            found=f"weights none, frozen_layers {detector.frozen_layers}",
            remedy="Train them with -o +plan_overwrites.detector.frozen_layers=0",
        )


def _without_weights(plan: PSMA25DPlan) -> Detector:
    return replace(plan.detector, weights="none")
