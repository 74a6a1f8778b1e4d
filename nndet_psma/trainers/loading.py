"""Batches from worker processes to the device."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER
from nndet_psma.core.workers import usable_cores

_LINGER_SECONDS = 30
_PREFETCH = 4
_MAX_WORKERS = 8
_OPEN_FILES = 256
"""Fewest open files a training with loader processes must be allowed: every tensor that waits for the training is one.
Measured: two processes and batches of two images hang or break with 64 and train with 100. macOS gives 256 at first."""

_ENOUGH_FILES = 4096


class Share(Dataset[Any]):
    """Items ``start..stop - 1`` of ``batches``; with several processes the part of one of them.

    Args:
        batches: item ``i`` is the batch of step ``i`` over all processes; with several processes it needs
            ``part(step, rank, world)``.
        start: first step.
        stop: step after the last.
        rank: of this process.
        world: number of processes.
    """

    def __init__(self, batches: Any, start: int, stop: int, rank: int = 0, world: int = 1) -> None:
        self.batches, self.start, self.stop = batches, start, stop
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __getitem__(self, index: int) -> Any:
        step = self.start + index
        return self.batches[step] if self.world == 1 else self.batches.part(step, self.rank, self.world)


def loader_workers(wanted: int | None) -> int:
    """Loader processes of this process: ``wanted``, at most its cores; None: its cores less one, at most 8."""
    cores = usable_cores()
    cores = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if wanted is None:
        return min(_MAX_WORKERS, cores - 1)
    if wanted > cores:
        LOGGER.warning(
            "trainer_cfg.num_workers=%d, but each training process has %d cores: %d are used",
            wanted,
            cores,
            cores,
        )
    return min(wanted, cores)


def load_batches(share: Share, workers: int, device: torch.device) -> Generator[Any, None, None]:
    """Yield the batches of ``share`` in order, on ``device``.

    Close the generator when it is left early: its workers outlive a SIGTERM for a while, so that whoever merely
    terminates them waits for that.

    Raises:
        UserError: loader processes are wanted, and the limit of open files is too low for them.
    """
    if workers:
        _allow_open_files()
    loader: DataLoader[Any] = DataLoader(
        share,
        batch_size=None,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=_PREFETCH if workers else None,
        # spawned workers would import everything again; fork is safe as the dataset holds no threads
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=_outlive_signals,
    )
    for batch in loader:
        yield to_device(batch, device)


def _allow_open_files() -> None:
    """Raise the limit of this process as far as it may; with too low a one loader processes die and are waited for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < _OPEN_FILES:
        raise UserError(
            "too few open files are allowed for loader processes",
            expected=f"at least {_OPEN_FILES}",
            found=str(wanted),
            remedy=f"Raise the limit (ulimit -n {_ENOUGH_FILES}), or load in the training itself with "
            "-o trainer_cfg.num_workers=0",
        )


def to_device(batch: Any, device: torch.device) -> Any:
    """Every tensor in lists and dictionaries of ``batch`` on ``device``."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {name: to_device(value, device) for name, value in batch.items()}
    if isinstance(batch, list):
        return [to_device(value, device) for value in batch]
    return batch


def _outlive_signals(_: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach the workers, too; the training must be able to finish its step first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, _linger)


def _linger(*_: Any) -> None:
    signal.alarm(_LINGER_SECONDS)
