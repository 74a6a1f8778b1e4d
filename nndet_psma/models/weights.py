"""Weights on disk: safetensors written by us, safetensors or weights-only torch files from elsewhere."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nndet_psma.core.atomic import atomic_file
from nndet_psma.core.errors import UserError

_DAMAGE = (OSError, RuntimeError, ValueError, pickle.UnpicklingError, EOFError)


def read_state(file: Path) -> dict[str, Tensor]:
    """Tensors by name from ``.safetensors`` or a torch file (loaded with ``weights_only``: no code is run).

    Raises:
        UserError: the file is missing, damaged, or holds more than tensors.
    """
    if not file.is_file():
        raise UserError("weights file does not exist", file=file)
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # safetensors raises its own SafetensorError, which is not importable from every release
        if not isinstance(error, _DAMAGE) and "safetensor" not in type(error).__name__.lower():
            raise
        reason = str(error).splitlines() or [type(error).__name__]
        raise UserError(
            "weights cannot be read", file=file, found=reason[0], remedy="Fetch or train them again"
        ) from None
    if not isinstance(content, dict):
        raise UserError("weights file holds no state dictionary", file=file, found=type(content).__name__)
    return content


def write_model(model: nn.Module, file: Path) -> None:
    """Write the state of ``model`` as safetensors, atomically."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_file(file) as temporary:
        save_file(state, temporary)


def read_model(model: nn.Module, file: Path) -> None:
    """Load a state written by :func:`write_model` into ``model``; every tensor must be there and fit.

    Raises:
        UserError: names the first layer that is missing, unknown or of another shape.
    """
    state, own = read_state(file), model.state_dict()
    for name, tensor in own.items():
        if name not in state:
            raise UserError(f"weights lack the layer {name}", file=file, remedy="They belong to another plan")
        if state[name].shape != tensor.shape:
            raise UserError(
                f"weights do not fit at {name}",
                file=file,
                expected=str(list(tensor.shape)),
                found=str(list(state[name].shape)),
            )
    extra = sorted(set(state) - set(own))
    if extra:
        raise UserError(
            f"weights hold an unknown layer {extra[0]}", file=file, remedy="They belong to another plan"
        )
    model.load_state_dict(state)
