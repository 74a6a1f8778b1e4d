"""Jobs as processes of this machine through submitit: its local executor, and its debug executor in this process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from nndet_psma.core.errors import UserError
from nndet_psma.jobs.record import is_job_process, read_run
from nndet_psma.jobs.work import INTERRUPTED, JobWork

_NO_LIMIT_MIN = 60 * 24 * 365  # submitit's own default would end a job after two minutes


class Running(Protocol):
    """An attempt of a job that was started."""

    job_id: str

    def done(self) -> bool:
        """Whether its processes are gone."""
        ...

    def stop(self) -> None:
        """Ask it to save and end."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


class Runner(Protocol):
    """Starts attempts."""

    def __call__(self, command: list[str], folder: Path, environment: dict[str, str]) -> Running:
        """Start ``command``; it writes ``run.json`` and its log into ``folder``."""
        ...


def import_submitit() -> Any:
    """The optional package; UserError names how to install it."""
    try:
        import submitit
    except ImportError:
        raise UserError(
            "train-all needs the package submitit",
            remedy="Say pip install 'nndet_psma[cluster]' (or pip install submitit); "
            "without it, nndet_train -o exp.fold=all trains one stage after another",
        ) from None
    return submitit


def local_runner(main: Callable[[list[str]], int]) -> Runner:
    """Attempts in processes of their own; ``main`` runs a command line there."""
    submitit = import_submitit()

    def start(command: list[str], folder: Path, environment: dict[str, str]) -> Running:
        executor = submitit.LocalExecutor(folder=folder)
        executor.update_parameters(timeout_min=_NO_LIMIT_MIN, stderr_to_stdout=True)
        with _interrupts_ignored():
            job = executor.submit(JobWork(main, environment, detached=True), command, str(folder))
        return LocalRun(job, folder)

    return start


def debug_runner(main: Callable[[list[str]], int]) -> Runner:
    """Attempts in this process, one after another: breakpoints work, an exception or Ctrl-C ends everything."""
    submitit = import_submitit()

    def start(command: list[str], folder: Path, environment: dict[str, str]) -> Running:
        executor = submitit.AutoExecutor(folder=folder, cluster="debug")
        try:
            error = executor.submit(JobWork(main), command, str(folder)).exception()
        except SystemExit as stop:  # the exit code stands in run.json
            if stop.code in INTERRUPTED:
                raise KeyboardInterrupt from None
            error = None
        if error is not None:
            raise error
        return FinishedRun()

    return start


class FinishedRun:
    """An attempt that has ended already."""

    job_id = ""

    def done(self) -> bool:
        """Always."""
        return True

    def stop(self) -> None:
        """Nothing runs."""

    def kill(self) -> None:
        """Nothing runs."""


class LocalRun:
    """An attempt in submitit's controller (which waits) and task (which works).

    Args:
        job: of submitit.
        folder: of the attempt.
    """

    def __init__(self, job: Any, folder: Path) -> None:
        self.job, self.folder = job, folder
        self.job_id = str(job.job_id)

    def done(self) -> bool:
        """Whether controller and task are gone; a task whose controller was killed is still waited for."""
        if not self.job.done():
            return False
        run = read_run(self.folder)
        if run is not None and run.alive:
            return False
        for pickle_file in self.folder.glob("*.pkl"):
            pickle_file.unlink()  # of no more use, and nobody should load it later
        return True

    def stop(self) -> None:
        """SIGTERM to the task; its controller goes on waiting while it saves."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the task; the controller then ends by itself."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        run = read_run(self.folder)
        if run is not None and run.alive:
            _send(run.pid, number)
        elif run is None and not self.job.done():
            _send(int(self.job_id), signal.SIGTERM)  # the task is only starting; its controller ends it


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it ended this moment
        if is_job_process(pid):
            os.kill(pid, number)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started inside never hear the terminal's Ctrl-C: the scheduler hears it and lets them save."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
