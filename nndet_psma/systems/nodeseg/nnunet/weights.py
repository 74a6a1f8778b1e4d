"""nnU-Net's checkpoints without unpickling anything but weights and numbers.

nnU-Net saves with pickle and loads with ``weights_only=False``: a checkpoint from elsewhere could run any program. Here
a file is read with ``weights_only=True``; the few NumPy numbers of nnU-Net's log are allowed by name. A consolidated
model holds a copy cut down to what prediction needs, which both nnU-Net and :func:`read_checkpoint` load.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nndet_psma.core.atomic import atomic_file
from nndet_psma.core.errors import UserError

_NEEDED = ("network_weights", "trainer_name", "init_args", "inference_allowed_mirroring_axes")
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
        with torch.serialization.safe_globals(_numbers()):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
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
    return dict(content)


def write_lean(source: Path, target: Path) -> None:
    """A copy with what prediction needs and nothing else: a third of the size, plain content."""
    content = read_checkpoint(source)
    lean = {
        "network_weights": content["network_weights"],
        "trainer_name": content["trainer_name"],
        "init_args": {"configuration": content["init_args"]["configuration"]},
        "inference_allowed_mirroring_axes": content["inference_allowed_mirroring_axes"],
    }
    with atomic_file(target) as temporary:
        torch.save(lean, temporary)
