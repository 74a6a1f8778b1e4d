"""Loader processes of a training."""

from __future__ import annotations

import resource

import pytest
import torch

from nndet_psma.core.errors import UserError
from nndet_psma.trainers.loading import Share, load_batches, loader_workers


def test_loader_processes(monkeypatch, caplog):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(12)), raising=False)
    assert [loader_workers(n) for n in (None, 0, 12)] == [8, 0, 12]
    assert not caplog.records
    assert loader_workers(40) == 12
    assert "num_workers=40, but each training process has 12 cores: 12 are used" in caplog.text
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert [loader_workers(n) for n in (None, 3, 4)] == [2, 3, 3]


@pytest.fixture
def limits(monkeypatch):
    """A machine with 64 open files at first and 8192 at most; the test may change both."""
    now = {"limits": (64, 8192)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: now["limits"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: now.update(limits=limits))
    return now


def test_loader_processes_get_open_files(limits):
    share = Share([torch.zeros(1)], 0, 1)
    next(load_batches(share, 0, torch.device("cpu")))
    assert limits["limits"] == (64, 8192)  # nothing is passed between processes
    next(load_batches(share, 1, torch.device("cpu")))
    assert limits["limits"] == (4096, 8192)
    limits["limits"] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    next(load_batches(share, 1, torch.device("cpu")))
    assert limits["limits"] == (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def test_too_few_open_files_are_refused_at_once(limits):
    limits["limits"] = (24, 24)
    message = r"too few open files .* expected at least 256; found 24\. .*ulimit -n 4096.*num_workers=0"
    with pytest.raises(UserError, match=message):
        next(load_batches(Share([torch.zeros(1)], 0, 1), 1, torch.device("cpu")))
