"""Costs of a command, measured on commands whose cost is known."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nndet_psma.core.stopwatch import run_measured

pytestmark = pytest.mark.skipif(not hasattr(os, "wait4"), reason="wait4 is POSIX")


def _run(code, **environment):
    return run_measured([sys.executable, "-S", "-c", code], {**os.environ, **environment})


@pytest.mark.parametrize("code", [0, 3])
def test_exit_code(code):
    assert _run(f"raise SystemExit({code})").code == code


def test_killed_by_a_signal_is_negative():
    assert _run("import os; os.kill(os.getpid(), 9)").code == -9


def test_sleeping_costs_wall_time_but_no_cpu_time():
    cost = _run("import time; time.sleep(0.4)")
    assert cost.seconds >= 0.4
    assert cost.cpu_seconds < 0.4


def test_computing_costs_cpu_time():
    # the process stops itself after 0.3 s of its own CPU time
    cost = _run("import time\nwhile time.process_time() < 0.3: pass")
    assert cost.cpu_seconds >= 0.3


def test_children_count():
    loop = "import time\nwhile time.process_time() < 0.3: pass"
    cost = _run(f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {loop!r}], check=True)")
    assert cost.cpu_seconds >= 0.3


def test_peak_memory_in_gb():
    # 300 MB that are really touched, beside about 15 MB of the interpreter. Measured from a fresh process: Linux
    # hands the peak of the caller, here pytest with everything it loaded, down to its children.
    command = [sys.executable, "-S", "-c", "data = bytearray(b'x') * 300_000_000"]
    caller = (
        "from nndet_psma.core.stopwatch import run_measured\n"
        f"import os; print(run_measured({command!r}, os.environ).peak_gb)"
    )
    done = subprocess.run([sys.executable, "-c", caller], capture_output=True, text=True, check=True)
    assert 0.30 < float(done.stdout) < 0.34


def test_environment_is_the_given_one():
    assert _run("import os; raise SystemExit(int(os.environ['WANTED']))", WANTED="7").code == 7


def test_output_is_passed_through(capfd):
    _run("print('hello')")
    assert capfd.readouterr().out == "hello\n"


def test_missing_command():
    with pytest.raises(FileNotFoundError):
        run_measured(["nndet_no_such_command"], os.environ)
