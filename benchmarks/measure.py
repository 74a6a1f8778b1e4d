"""What a command costs, its processes together: shared by the benchmarks of this folder. Linux."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_SAMPLE_S = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")

ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "BLOSC_NTHREADS",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    )
}
"""Environment in which every library computes with one thread per process."""


@dataclass(frozen=True)
class Cost:
    """Cost of one command.

    Attributes:
        seconds: wall time.
        cpu_seconds: user and system time of all its processes.
        peak_gb: resident memory of its largest process at its worst moment, GB (1e9 bytes), from the kernel's own
            high-water mark.
        tree_gb: the same of all processes together, sampled ten times a second; memory that processes share is
            counted once for each, so it is an upper bound.
    """

    seconds: float
    cpu_seconds: float
    peak_gb: float
    tree_gb: float


def measure(command: Sequence[str], environment: Mapping[str, str], log: Path | None = None) -> Cost:
    """Run a command to its end; its output goes to ``log``.

    Raises:
        RuntimeError: it failed; shows the end of its output.
    """
    with (log or Path(os.devnull)).open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(list(command), env=dict(environment), stdout=output, stderr=output)
        sampler = _Sampler(process.pid)
        sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        sampler.stop()
    if process.returncode:
        tail = "" if log is None else log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{' '.join(command[:3])} ended with {process.returncode}\n{tail}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9, sampler.peak / 1e9)


def median_cost(costs: Iterable[Cost]) -> Cost:
    """Median of every figure."""
    rows = [asdict(cost) for cost in costs]
    return Cost(**{key: statistics.median(row[key] for row in rows) for key in rows[0]})


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown table; numbers to three significant digits."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def write_result(file: Path | None, content: dict[str, Any]) -> None:
    """Write figures with the machine they were taken on, when a file is named."""
    if file is None:
        return
    machine = {"cores": os.cpu_count(), "python": sys.version.split()[0], "processor": _processor()}
    file.write_text(json.dumps({"machine": machine, **content}, indent=2) + "\n")


def executable(name: str) -> str:
    """A command of the environment this Python runs in."""
    return str(Path(sys.executable).with_name(name))


class _Sampler(threading.Thread):
    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.root, self.peak = root, 0
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(_SAMPLE_S):
            self.peak = max(self.peak, sum(_resident(pid) for pid in _tree(self.root)))

    def stop(self) -> None:
        self._done.set()
        self.join()


def _tree(root: int) -> set[int]:
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
                parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue  # ended meanwhile
    found, grew = {root}, True
    while grew:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grew = bool(more)
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
