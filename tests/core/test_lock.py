"""The lock of a folder: names its holder, survives no crash, is taken over when stale."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time

import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.core.lock import LOCK_FILE, STALE_MINUTES, FolderLock, Holder


def _write(folder, age_minutes=0.0, **changes):
    """A lock of somebody else."""
    content = {"host": "elsewhere", "pid": 1, "since": "2026-01-01T00:00:00+00:00", "born": "", "token": "x"}
    file = folder / LOCK_FILE
    file.write_text(json.dumps({**content, **changes}))
    before = time.time() - 60 * age_minutes
    os.utime(file, (before, before))
    return file


def test_held_lock_names_the_holder(tmp_path):
    folder = tmp_path / "new"
    with FolderLock(folder):
        me = rf"process {os.getpid()} on {socket.gethostname()} since 20\d\d-\d\d-\d\dT"
        with pytest.raises(
            UserError, match=rf"new: another training runs in this folder; found {me}.*lock\.json"
        ):
            FolderLock(folder).acquire()
    assert not list(folder.iterdir())
    with FolderLock(folder):
        pass  # free again


def test_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(KeyError), FolderLock(tmp_path):
        raise KeyError
    assert not (tmp_path / LOCK_FILE).exists()


def test_dead_process_of_this_machine_is_stale(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from nndet_psma.core.lock import FolderLock; "
        "FolderLock(Path(sys.argv[1])).acquire(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 9
    assert (tmp_path / LOCK_FILE).is_file()
    with FolderLock(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_number_of_a_dead_process_that_another_has_now_is_stale(tmp_path):
    me = Holder.me()
    if not me.born:
        pytest.skip("the system does not tell when a process began")
    _write(tmp_path, host=me.host, pid=me.pid, born="1")
    with FolderLock(tmp_path):
        pass
    _write(tmp_path, host=me.host, pid=me.pid, born=me.born)
    with pytest.raises(UserError, match="another training"):
        FolderLock(tmp_path).acquire()


def test_other_machine_is_judged_by_its_heartbeat(tmp_path):
    file = _write(tmp_path, age_minutes=STALE_MINUTES - 1)
    with pytest.raises(UserError, match="process 1 on elsewhere since 2026-01-01T00:00:00"):
        FolderLock(tmp_path).acquire()
    assert file.is_file()
    _write(tmp_path, age_minutes=STALE_MINUTES + 1)
    with FolderLock(tmp_path):
        pass


def test_heartbeat(tmp_path, monkeypatch):
    with FolderLock(tmp_path) as lock:
        old = time.time() - 1000
        os.utime(lock.file, (old, old))
        lock.beat()
        assert lock.file.stat().st_mtime < old + 1  # not at every step
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 31)
        lock.beat()
        assert lock.file.stat().st_mtime > old + 900
        lock.file.unlink()
        monkeypatch.setattr(time, "monotonic", lambda: now + 62)
        lock.beat()  # a file system that is away does not end a training


def test_as_a_context_manager_it_beats_by_itself(tmp_path, monkeypatch):
    """nnU-Net trains for days and never calls us."""
    monkeypatch.setattr("nndet_psma.core.lock._BEAT_SECONDS", 0.01)
    old = time.time() - 1000
    with FolderLock(tmp_path) as lock:
        os.utime(lock.file, (old, old))
        until = time.monotonic() + 10
        while lock.file.stat().st_mtime < old + 900:
            assert time.monotonic() < until
            time.sleep(0.01)
    file = _write(tmp_path, age_minutes=10)
    before = file.stat().st_mtime
    time.sleep(0.05)
    assert file.stat().st_mtime == before  # not after it was given back


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"host": 3'])
def test_damaged_lock_is_stale(tmp_path, content):
    (tmp_path / LOCK_FILE).write_text(content)
    with FolderLock(tmp_path):
        pass


def test_lock_that_was_taken_over_is_not_removed(tmp_path):
    with FolderLock(tmp_path):
        _write(tmp_path)
    assert json.loads((tmp_path / LOCK_FILE).read_text())["host"] == "elsewhere"


def test_file_system_without_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    with FolderLock(tmp_path), pytest.raises(UserError, match="another training"):
        FolderLock(tmp_path).acquire()
    assert not list(tmp_path.iterdir())


def _race(folder, go, winners):
    go.wait()
    try:
        FolderLock(folder).acquire()
        winners.put(os.getpid())
        time.sleep(0.3)  # as long as the others try
    except UserError:
        winners.put(None)


def test_only_one_takes_over_a_stale_lock(tmp_path):
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        _write(tmp_path, age_minutes=STALE_MINUTES + 1)
        go, winners = context.Event(), context.Queue()
        racers = [context.Process(target=_race, args=(tmp_path, go, winners)) for _ in range(4)]
        for racer in racers:
            racer.start()
        go.set()
        found = [winners.get(timeout=20) for _ in racers]
        for racer in racers:
            racer.join()
        assert sum(pid is not None for pid in found) == 1
