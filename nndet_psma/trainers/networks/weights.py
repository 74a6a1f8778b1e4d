"""Weights on disk: safetensors written by us, safetensors or weights-only torch files from elsewhere."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from nndet_psma.core.atomic import atomic_file
from nndet_psma.core.errors import UserError

_OTHER = "They belong to another plan (network, anchors, classes or channels)"
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
    write_state(model.state_dict(), file)


def write_state(state: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors by name as safetensors, atomically.

    Raises:
        UserError: the disk is full.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with atomic_file(file) as temporary:
        temporary.write_bytes(save(plain))  # its own writer hides which error the system gave


def read_model(model: nn.Module, file: Path) -> None:
    """Load a state written by :func:`write_model` into ``model``; every tensor must be there and fit.

    Raises:
        UserError: names the first layer that is missing, unknown or of another shape.
    """
    load_state(model, read_state(file), file)


def load_state(model: nn.Module, state: Mapping[str, Tensor], file: Path) -> None:
    """Load ``state``, which was read from ``file``, into ``model``; every tensor must be there and fit.

    Raises:
        UserError: names the first layer that is missing, unknown or of another shape.
    """
    own = model.state_dict()
    for name, tensor in own.items():
        if name not in state:
            raise UserError(f"weights lack the layer {name}", file=file, remedy=_OTHER)
        if state[name].shape != tensor.shape:
            raise UserError(
                f"weights do not fit at {name}",
                file=file,
                expected=str(list(tensor.shape)),
                found=str(list(state[name].shape)),
                remedy=_OTHER,
            )
    extra = sorted(set(state) - set(own))
    if extra:
        raise UserError(f"weights hold an unknown layer {extra[0]}", file=file, remedy=_OTHER)
    model.load_state_dict(dict(state))
