"""One function over many cases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.core.workers import map_cases


def _double(number):
    if number == 13:
        raise UserError("unlucky", found="13")
    return 2 * number


def _worker(_):
    return os.getpid(), os.environ.get("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


def _mark_or_fail(file):
    if file is None:
        raise UserError("stop")
    time.sleep(0.2)
    file.touch()


def test_order_and_errors_here():
    assert map_cases(_double, [3, 1, 2]) == [6, 2, 4]
    with pytest.raises(UserError, match="unlucky"):
        map_cases(_double, [1, 13])


def test_order_and_errors_of_workers():
    assert map_cases(_double, [3, 1, 2], num_processes=2) == [6, 2, 4]
    with pytest.raises(UserError, match="unlucky; found 13"):
        map_cases(_double, [1, 13], num_processes=2)
    assert map_cases(_double, [4, 5], num_processes=2) == [8, 10]


def test_a_killed_worker_is_explained_and_the_next_call_has_new_ones():
    with pytest.raises(UserError, match=r"killed.*fewer processes"):
        map_cases(os._exit, [9, 9], num_processes=2)
    assert map_cases(_double, [3, 1], num_processes=2) == [6, 2]


def test_workers_are_kept_and_compute_with_one_thread():
    first = map_cases(_worker, range(6), num_processes=2)
    second = map_cases(_worker, range(6), num_processes=2)
    workers = {pid for pid, _ in [*first, *second]}
    assert len(workers) <= 2
    assert os.getpid() not in workers
    assert all(threads is not None for _, threads in first)


def test_an_error_stops_what_was_not_begun(tmp_path):
    files = [tmp_path / str(number) for number in range(40)]
    with pytest.raises(UserError, match="stop"):
        map_cases(_mark_or_fail, [None, *files], num_processes=2)
    done = len(list(tmp_path.iterdir()))
    assert done < 10
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) == done  # and nobody goes on behind our back


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_end_with_a_killed_command(tmp_path):
    (tmp_path / "own.py").write_text(
        "import os, time\n"
        "from pathlib import Path\n"
        "from nndet_psma.core.workers import map_cases\n"
        "def work(folder):\n"
        "    (Path(folder) / f'{os.getpid()}.pid').touch()\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        f"    map_cases(work, [{str(tmp_path)!r}] * 2, 2)\n"
    )
    command = subprocess.Popen([sys.executable, str(tmp_path / "own.py")], stderr=subprocess.DEVNULL)
    assert _until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    workers = [int(file.stem) for file in tmp_path.glob("*.pid")]
    command.send_signal(signal.SIGKILL)
    command.wait()
    assert _until(lambda: not any(_runs(pid) for pid in workers))


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _until(condition):
    for _ in range(200):
        if condition():
            return True
        time.sleep(0.1)
    return False
