"""Run a command and say what it cost: wall time, CPU time and peak memory, children included."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

_PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes; getrusage(2) of the two systems differs


@dataclass(frozen=True)
class StepCost:
    """Cost of one command.

    Attributes:
        code: exit code.
        seconds: wall time.
        cpu_seconds: user and system time of the command and its children.
        peak_gb: largest resident memory of any one of its processes, GB (1e9 bytes). Linux hands the caller's own
            peak down to the command, so measure from a process that has loaded little.
    """

    code: int
    seconds: float
    cpu_seconds: float
    peak_gb: float


def run_measured(command: list[str], environment: Mapping[str, str]) -> StepCost:
    """Run ``command`` to its end with its output passed through (POSIX: uses ``wait4``)."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=dict(environment))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return StepCost(
        code=process.returncode,
        seconds=time.perf_counter() - start,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_gb=usage.ru_maxrss * _PEAK_UNIT / 1e9,
    )
