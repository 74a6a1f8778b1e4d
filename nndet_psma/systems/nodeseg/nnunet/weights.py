"""nnU-Net's checkpoints without unpickling anything but weights and numbers.

nnU-Net saves with pickle and loads with ``weights_only=False``: a checkpoint from elsewhere could run any program. Here
a file is read with ``weights_only=True``; the few NumPy numbers of nnU-Net's log are allowed by name. A consolidated
model holds a copy cut down to what prediction needs, which both nnU-Net and :func:`read_checkpoint` load.
"""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nndet_psma.core.atomic import atomic_file
from nndet_psma.core.errors import UserError

_DAMAGE = (
    pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, zlib.error, zipfile.BadZipFile
)  # fmt: skip
_NEEDED = ("network_weights", "trainer_name", "init_args", "inference_allowed_mirroring_axes")
Weights = Mapping[str, torch.Tensor]
_DTYPES = (np.float16, np.float32, np.float64, np.int32, np.int64, np.bool_)


def _numbers() -> list[Any]:
    """What NumPy numbers are pickled with."""
    scalar = np.float64(0).__reduce__()[0]
    return [scalar, np.dtype, *(type(np.dtype(kind)) for kind in _DTYPES)]


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Content of a checkpoint, on the CPU.

    Raises:
        UserError: missing, damaged, no checkpoint of nnU-Net, or it holds objects that only pickle could make.
    """
    if not file.is_file():
        raise UserError("weights are missing", file=file, remedy="Run nndet_train again")
    try:
        _check_bytes(file)
        with torch.serialization.safe_globals(_numbers()):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        reason = str(error).strip().splitlines()
        raise UserError(
            "the checkpoint is damaged, or holds more than weights and numbers and is not loaded",
            file=file,
            found=reason[0] if reason else type(error).__name__,
            remedy="Use checkpoints of this package's trainer",
        ) from None
    missing = [key for key in _NEEDED if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError("is no checkpoint of nnU-Net", file=file, expected=f"the key {missing[0]}")
    named = content["network_weights"], content["init_args"]
    if not all(isinstance(part, dict) for part in named) or "configuration" not in content["init_args"]:
        raise UserError("is no checkpoint of nnU-Net", file=file, expected="weights by name, and arguments")
    if not all(isinstance(tensor, torch.Tensor) for tensor in content["network_weights"].values()):
        raise UserError("is no checkpoint of nnU-Net", file=file, expected="weights that are tensors")
    return dict(content)


def _check_bytes(file: Path) -> None:
    """The checksums of the zip that a checkpoint is: torch itself does not compare them."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} differs from its checksum")


def write_lean(source: Path, target: Path) -> None:
    """A copy with what prediction needs and nothing else: a third of the size, plain content."""
    content = read_checkpoint(source)
    write_checkpoint(
        target,
        content["network_weights"],
        trainer=content["trainer_name"],
        configuration=content["init_args"]["configuration"],
        mirrored_axes=content["inference_allowed_mirroring_axes"],
    )


def write_checkpoint(
    target: Path,
    weights: Weights,
    *,
    trainer: str,
    configuration: str,
    mirrored_axes: Sequence[int] | None,
) -> None:
    """Write a checkpoint that holds what prediction needs and nothing else.

    Args:
        target: file to write.
        weights: of the network, by name.
        trainer: name of nnU-Net's trainer.
        configuration: of nnU-Net's plans.
        mirrored_axes: of the image (0 is z) along which training mirrored; None for none.
    """
    lean = {
        "network_weights": dict(weights),
        "trainer_name": trainer,
        "init_args": {"configuration": configuration},
        "inference_allowed_mirroring_axes": None if mirrored_axes is None else tuple(mirrored_axes),
    }
    with atomic_file(target) as temporary:
        torch.save(lean, temporary)


def unique_weights(weights: Weights) -> dict[str, torch.Tensor]:
    """Weights without those that share their memory with one before.

    nnU-Net's networks hold every layer of the encoder under four names, and safetensors would write it four times.
    """
    seen = set()
    unique = {}
    for name, tensor in weights.items():
        place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride())
        if place not in seen or tensor.numel() == 0:
            unique[name] = tensor.contiguous()
        seen.add(place)
    return unique


def with_every_name(network: nn.Module, weights: Weights, file: Path) -> dict[str, torch.Tensor]:
    """Weights under all names that a network has for them: the other way of :func:`unique_weights`.

    Args:
        network: that they belong to; its own values do not matter, so it may lie on the device "meta".
        weights: by one name or more each.
        file: named in errors.

    Raises:
        UserError: a layer lacks its weights.
    """
    names_of: dict[int, list[str]] = {}
    own = network.state_dict(keep_vars=True)
    for name, tensor in own.items():
        names_of.setdefault(id(tensor), []).append(name)
    found = {}
    for names in names_of.values():
        given = [name for name in names if name in weights]
        if not given:
            raise UserError(
                "the weights do not fit the plans",
                file=file,
                found=f"none of {names[0]}",
                remedy="Give weights of the same architecture",
            )
        found.update({name: weights[name] if name in given else weights[given[0]] for name in names})
    others = {name: tensor for name, tensor in weights.items() if name not in own}
    return {name: found[name] for name in own} | others


def check_fit(network: nn.Module, weights: Weights, file: Path) -> None:
    """Names, shapes and types of weights are those of a network, which may lie on the device "meta".

    Raises:
        UserError: names the first that is not.
    """
    own = network.state_dict()
    for name in (*own, *weights):
        wanted, found = own.get(name), weights.get(name)
        if wanted is None or found is None or (wanted.shape, wanted.dtype) != (found.shape, found.dtype):
            raise UserError(
                "the weights do not fit the plans",
                file=file,
                expected=f"{name}: {_described(wanted)}",
                found=_described(found),
            )


def _described(tensor: torch.Tensor | None) -> str:
    return "nothing" if tensor is None else f"{tuple(tensor.shape)} {tensor.dtype}".replace("torch.", "")
