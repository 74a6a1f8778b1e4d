"""State of a fan-out in files: ``train_all.json`` of the scheduler, ``run.json`` of every attempt of a job."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from nndet_psma.artifacts.artifact import Artifact
from nndet_psma.core.lock import FolderLock
from nndet_psma.jobs.graph import Job

RECORD_FILE = "train_all.json"
JOBS_FOLDER = "jobs"
RUN_FILE = "run.json"

State = Literal["waiting", "submitted", "running", "done", "failed", "stopped"]


@dataclass(frozen=True)
class JobState:
    """A job and how far it is.

    Attributes:
        job: what it does.
        made_from: hash of plan, data and configuration; another hash makes a finished job run again.
        state: ``submitted`` is in SLURM's queue; ``stopped`` was interrupted and goes on with the next start.
        attempts: starts since ``train-all`` was last called for it.
        seconds: wall clock of these attempts together.
        folder: of the last attempt, relative to the model folder; None when it never started.
        job_id: of submitit: the process, or SLURM's number.
        gpu: that it was given (an entry of CUDA_VISIBLE_DEVICES).
        why: why it failed or waits; "" otherwise.
    """

    job: Job
    made_from: str
    state: State = "waiting"
    attempts: int = 0
    seconds: float = 0.0
    folder: str | None = None
    job_id: str | None = None
    gpu: str | None = None
    why: str = ""


@dataclass(frozen=True)
class TrainAllRecord(Artifact):
    """All jobs of a model folder, in the order in which they can run."""

    schema: ClassVar[str] = "nndet_psma.train_all"
    remade_by: ClassVar[str] = "nndet_psma train-all, after deleting the file,"

    executor: str
    jobs: list[JobState]


@dataclass(frozen=True)
class JobRun(Artifact):
    """One attempt of a job, written by its own process.

    Attributes:
        host: name of the machine.
        pid: of the process there.
        started: seconds since 1970.
        ended: the same; None while it runs, and for ever when it was killed.
        code: exit code; None like ``ended``.
    """

    schema: ClassVar[str] = "nndet_psma.job_run"
    remade_by: ClassVar[str] = "nndet_psma train-all"

    host: str
    pid: int
    started: float
    ended: float | None = None
    code: int | None = None

    @property
    def alive(self) -> bool:
        """Whether the process runs on this machine; False for one on another machine."""
        return self.ended is None and self.host == socket.gethostname() and is_job_process(self.pid)


def read_record(model: Path) -> TrainAllRecord | None:
    """The record of a model folder; None when there is none; UserError when it cannot be read."""
    file = model / RECORD_FILE
    return TrainAllRecord.read(file) if file.is_file() else None


def read_run(folder: Path) -> JobRun | None:
    """What the process in an attempt's folder wrote; None when it was ended before it could."""
    file = folder / RUN_FILE
    return JobRun.read(file) if file.is_file() else None


def next_attempt(model: Path, job: str) -> Path:
    """A new folder ``jobs/JOB/N`` for an attempt; older attempts keep their logs."""
    parent = model / JOBS_FOLDER / job.replace("/", "-")
    numbers = [int(path.name) for path in parent.glob("*") if path.name.isdigit()]
    folder = parent / str(max(numbers, default=0) + 1)
    folder.mkdir(parents=True)
    return folder


def log_file(folder: Path) -> Path | None:
    """The log of an attempt; None before it has one."""
    return max(folder.glob("*_log.out"), default=None, key=lambda file: file.stat().st_mtime)


def last_lines(folder: Path, number: int = 15) -> list[str]:
    """The end of an attempt's log."""
    file = log_file(folder)
    if file is None:
        return []
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if line.strip()][-number:]


def is_job_process(pid: int) -> bool:
    """Whether ``pid`` is a process of submitit on this machine; numbers are used again, so its command is looked at."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    with suppress(OSError):  # systems without /proc: the number alone must do
        return b"submitit" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return True


def jobs_lock(model: Path) -> FolderLock:
    """Held by the one scheduler of a model folder."""
    return FolderLock(model / JOBS_FOLDER, "another train-all is at work here")
