"""Loader processes of a training."""

from __future__ import annotations

from nndet_psma.trainers.loading import loader_workers


def test_loader_processes(monkeypatch, caplog):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(12)), raising=False)
    assert [loader_workers(n) for n in (None, 0, 12)] == [8, 0, 12]
    assert not caplog.records
    assert loader_workers(40) == 12
    assert "num_workers=40, but each training process has 12 cores: 12 are used" in caplog.text
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert [loader_workers(n) for n in (None, 3, 4)] == [2, 3, 3]
