"""Several processes that train one model: who writes, and how their losses and errors become one.

All functions do the plain thing when there is one process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    broadcast_object_list,
    gather_object,
)
from torch import Tensor, nn

from nndet_psma.core.errors import UserError
from nndet_psma.trainers.networks.norms import share_statistics

_TIMEOUT = timedelta(hours=2)  # mining on a slow disk; a dead process is the launcher's to notice
_ELSEWHERE = "another process of this training stopped"


def is_main() -> bool:
    """Whether this process writes what all share, as the launcher's environment tells; no process group is needed."""
    return int(os.environ.get("RANK", "0")) == 0


def join_processes(batch_size: int, **arguments: Any) -> Accelerator:
    """Device and process group of this process; torchrun's and ``accelerate launch``'s variables are honoured.

    Args:
        batch_size: slices per step over all processes.
        arguments: further ones of ``Accelerator``.

    Raises:
        UserError: more processes than slices per step.
    """
    # buffers agree without being sent: statistics of norms are constant or shared
    plain = DistributedDataParallelKwargs(broadcast_buffers=False)
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no",  # trainers.precision does it
        kwargs_handlers=[plain, InitProcessGroupKwargs(timeout=_TIMEOUT)],
        **arguments,
    )
    if accelerator.num_processes > batch_size:
        raise UserError(
            f"{accelerator.num_processes} processes share a batch of {batch_size} slices",
            remedy="Start fewer processes or raise trainer_cfg.batch_size",
        )
    return accelerator


def spread(model: nn.Module, accelerator: Accelerator) -> nn.Module:
    """``model`` for this process: gradients are averaged over processes; trained norms must be shared before."""
    wrapped: nn.Module = accelerator.prepare_model(model) if accelerator.num_processes > 1 else model
    return wrapped


def shared_norms(model: nn.Module, accelerator: Accelerator) -> nn.Module:
    """``model`` with batch statistics over all processes."""
    return share_statistics(model, accelerator.device) if accelerator.num_processes > 1 else model


def on_main(accelerator: Accelerator, action: Callable[[], None]) -> None:
    """Run ``action`` on the main process; the others wait, and fail when it fails.

    Raises:
        UserError: what ``action`` raised on the main process, on every process.
    """
    error: UserError | None = None
    if accelerator.is_main_process:
        try:
            action()
        except UserError as caught:
            error = caught
    if accelerator.num_processes > 1:
        told: list[UserError | None] = [error]
        broadcast_object_list(told)
        error = told[0]
    if error is not None:
        raise error


def together(accelerator: Accelerator, action: Callable[[], Any]) -> Any:
    """Run ``action`` on every process; when it fails on one, all stop.

    Raises:
        UserError: on the processes where ``action`` did not fail; the others raise what it raised.
    """
    if accelerator.num_processes == 1:
        return action()
    error: Exception | None = None
    result = None
    try:
        result = action()
    except Exception as caught:  # whatever it is, the others must hear of it before it is raised
        error = caught
    failed = accelerator.reduce(torch.tensor([float(error is not None)], device=accelerator.device), "sum")
    if error is not None:
        raise error
    if failed.item():
        raise UserError(_ELSEWHERE, remedy="Its own message tells why")
    return result


def gather(accelerator: Accelerator, item: Any) -> list[Any]:
    """``item`` of every process in the order of their ranks."""
    return list(gather_object([item])) if accelerator.num_processes > 1 else [item]


def image_numbers(batch: Mapping[str, Any], accelerator: Accelerator) -> list[int]:
    """Numbers of a part's images within the whole batch (``rank, rank + world, ...``)."""
    rank, world = accelerator.process_index, accelerator.num_processes
    return [rank + world * index for index in range(len(batch["slices"]))]


def global_means(
    losses: Mapping[str, Tensor], counts: Mapping[str, int], accelerator: Accelerator
) -> dict[str, Tensor]:
    """Losses whose mean over processes, gradients included, is that of one process with the whole batch.

    A loss that is a mean over n boxes here and over N boxes everywhere counts n / N of the whole; the mean over W
    processes that gradients get divides by W, hence the factor W n / N.

    Args:
        losses: means over the boxes of this process.
        counts: boxes of each loss on this process.
        accelerator: of the processes.
    """
    world = accelerator.num_processes
    if world == 1:
        return dict(losses)
    own = torch.tensor([float(counts[name]) for name in losses], device=accelerator.device)
    everywhere = accelerator.reduce(own, "sum").clamp(min=1)
    factors = world * own / everywhere
    # the mean over no boxes is 0 / 0, but has no share in the whole
    return {name: loss.nan_to_num(0.0) * f if counts[name] == 0 else loss * f
            for (name, loss), f in zip(losses.items(), factors, strict=True)}  # fmt: skip


def summed(values: Sequence[Tensor | float], accelerator: Accelerator) -> list[float]:
    """Sum of each number over processes; waits for the device once."""
    tensors = [v.detach().float() if isinstance(v, Tensor) else torch.tensor(float(v)) for v in values]
    numbers = torch.stack([tensor.reshape(()).to(accelerator.device) for tensor in tensors])
    if accelerator.num_processes > 1:
        numbers = accelerator.reduce(numbers, "sum")
    total: list[float] = numbers.tolist()
    return total
