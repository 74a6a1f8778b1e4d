"""Weights on disk: safetensors written by us, safetensors or weights-only torch files from elsewhere.

What we write has a checksum in its header: a flipped bit of a weight changes results without a trace.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from nndet_psma.core.atomic import atomic_file
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import CHECKSUM

_OTHER = "They belong to another plan (network, anchors, classes or channels)"
_DAMAGE = (OSError, RuntimeError, ValueError, pickle.UnpicklingError, EOFError)


def read_state(file: Path) -> dict[str, Tensor]:
    """Tensors by name from ``.safetensors`` or a torch file (loaded with ``weights_only``: no code is run).

    Raises:
        UserError: the file is missing, damaged, differs from its checksum, or holds more than tensors.
    """
    if not file.is_file():
        raise UserError("weights file does not exist", file=file, remedy="Correct the path")
    try:
        if file.suffix == ".safetensors":
            return _read_safetensors(file)
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
        raise UserError(
            "weights file holds no state dictionary",
            file=file,
            found=type(content).__name__,
            expected="a dictionary of tensors",
        )
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
        # its own writer hides which error the system gave
        temporary.write_bytes(save(plain, {CHECKSUM: _checksum(plain)}))


def check_finite(state: Mapping[str, Tensor], file: Path) -> None:
    """UserError where weights, which were read from ``file``, hold NaN or infinity: such a network finds nothing."""
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(
                "the weights hold NaN or infinity",
                file=file,
                found=name,
                remedy="Train again, or ask for the file again",
            )


def read_model(model: nn.Module, file: Path) -> None:
    """Load a state written by :func:`write_model` into ``model``; every tensor must be there and fit.

    Raises:
        UserError: names the first layer that is missing, unknown or of another shape.
    """
    load_state(model, read_state(file), file)


def load_state(model: nn.Module, state: Mapping[str, Tensor], file: Path) -> None:
    """Load ``state``, which was read from ``file``, into ``model``; every tensor must be there, fit and be finite.

    Raises:
        UserError: names the first layer that is missing, unknown, of another shape or type, or not finite.
    """
    own = model.state_dict()
    for name, tensor in own.items():
        if name not in state:
            raise UserError(f"weights lack the layer {name}", file=file, remedy=_OTHER)
        wanted, found = _described(tensor), _described(state[name])
        if wanted != found:
            raise UserError(
                f"weights do not fit at {name}", file=file, expected=wanted, found=found, remedy=_OTHER
            )
    extra = sorted(set(state) - set(own))
    if extra:
        raise UserError(f"weights hold an unknown layer {extra[0]}", file=file, remedy=_OTHER)
    check_finite(state, file)
    model.load_state_dict(dict(state))


def _described(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {tensor.dtype}".replace("torch.", "")


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    with safe_open(file, framework="pt") as opened:
        state: dict[str, Tensor] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        noted = (opened.metadata() or {}).get(CHECKSUM)
    if noted is not None and noted != _checksum(state):
        raise UserError(
            "the weights are not those that were written: the file is damaged",
            file=file,
            remedy="Fetch or train them again",
        )
    return state


def _checksum(state: Mapping[str, Tensor]) -> str:
    """Hash of names, types, shapes and bytes. 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {_described(tensor)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
