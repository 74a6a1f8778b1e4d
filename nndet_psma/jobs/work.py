"""What a job's process does: run one command of ours, note in a file when it began, when it ended and how."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from nndet_psma.jobs.record import RUN_FILE, JobRun

USER_ERROR = 2
INTERRUPTED = (130, 143)  # Ctrl-C, SIGTERM: somebody wanted it to end
REQUEUED = -1  # SLURM has the job in its queue again; submitit itself ends with this code after a time limit
_RESTARTS = "SLURM_RESTART_COUNT"


@dataclass(frozen=True)
class JobWork:
    """The function that submitit runs in the job's process; it is pickled, so it holds plain values only.

    Attributes:
        main: runs a command line and returns its exit code; a function of a module, which pickles as its name.
        environment: variables set before the command starts (and before PyTorch is imported).
        detached: the process leaves the terminal's group and takes SIGTERM as the wish to save and end.
        slurm_retries: how often a failed job puts itself back into SLURM's queue.
    """

    main: Callable[[list[str]], int]
    environment: dict[str, str] = field(default_factory=dict)
    detached: bool = False
    slurm_retries: int = 0

    def __call__(self, command: list[str], folder: str) -> None:
        """Run ``command``; ``folder`` gets ``run.json``.

        Raises:
            SystemExit: with the command's exit code where that is not 0.
        """
        os.environ.update(self.environment)
        if self.detached:
            os.setpgid(0, 0)  # the terminal's Ctrl-C is for the scheduler, which then sends SIGTERM
            signal.signal(signal.SIGTERM, _interrupt)
        run = JobRun(socket.gethostname(), os.getpid(), time.time())
        run.write(Path(folder) / RUN_FILE)
        code = 1  # stays when an exception ends the command: a bug, whose traceback goes to the log
        try:
            code = self._run(command)
        finally:
            self._end(replace(run, ended=time.time(), code=code), Path(folder) / RUN_FILE)
        if code:
            raise SystemExit(code)

    def checkpoint(self, command: list[str], folder: str) -> Any:
        """Called by submitit when SLURM's time limit or a preemption ends the job: queue it again.

        The command goes on from its own checkpoint.
        """
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, command, folder)

    def _run(self, command: list[str]) -> int:
        try:
            return self.main(command)
        except KeyboardInterrupt:
            return INTERRUPTED[0]
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)

    def _end(self, run: JobRun, file: Path) -> None:
        """Note the end; after a failure go back into SLURM's queue, where jobs that wait for this one go on waiting."""
        final = (0, USER_ERROR, REQUEUED, *INTERRUPTED)
        if run.code in final or int(os.environ.get(_RESTARTS, "0")) >= self.slurm_retries:
            run.write(file)
            return
        replace(run, code=REQUEUED).write(file)  # before: SLURM ends this process at once
        command = ["scontrol", "requeue", os.environ["SLURM_JOB_ID"]]
        if subprocess.run(command, check=False, timeout=60).returncode != 0:
            run.write(file)


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt
