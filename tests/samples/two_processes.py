"""Two forked processes with a launcher's environment, on the CPU (gloo)."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch


def run_two(target: Callable[..., Any], *arguments: Any) -> list[int | None]:
    """Exit codes of two forked processes with a launcher's environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_enter, args=(rank, port, target, arguments)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(100)
    return [worker.exitcode for worker in workers]


def _enter(rank: int, port: int, target: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # what the parent process had
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    target(*arguments)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
