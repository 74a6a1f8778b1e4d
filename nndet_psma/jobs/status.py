"""How far jobs are, from what their own processes wrote and what SLURM knows; nothing is started or written."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nndet_psma.core.errors import UserError
from nndet_psma.jobs.record import RECORD_FILE, RUN_FILE, JobState, read_record, read_run
from nndet_psma.jobs.work import INTERRUPTED, REQUEUED

_UNFINISHED = ("running", "submitted")
_QUEUED = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "CONFIGURING", "SUSPENDED", "PREEMPTED")
_ALIVE = ("RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED")


def current_states(model: Path) -> list[JobState]:
    """The jobs of a model folder as they are now; [] when ``train-all`` never ran there.

    A scheduler that was killed, or SLURM, which needs none, leaves ``train_all.json`` behind the truth.
    """
    record = read_record(model)
    if record is None:
        return []
    states = [refreshed(state, model) for state in record.jobs]
    if record.executor != "slurm":
        return states
    told = slurm_states([s.job_id for s in record.jobs if s.state in _UNFINISHED and s.job_id])
    return [_with_slurm(state, told.get(state.job_id or "")) for state in states]


def refreshed(state: JobState, model: Path) -> JobState:
    """The state as the ``run.json`` of the job's last attempt tells it."""
    run = read_run(model / state.folder) if state.folder and state.state in _UNFINISHED else None
    if run is None:
        return state
    attempts = max(1, state.attempts)
    if run.ended is None or run.code is None:
        if run.host == socket.gethostname() and not run.alive:
            return replace(state, state="stopped", attempts=attempts, why="was killed")
        return replace(state, state="running", attempts=attempts, why="")
    seconds = run.ended - run.started
    if run.code == 0:
        return replace(state, state="done", attempts=attempts, seconds=seconds, why="")
    if run.code == REQUEUED:
        return replace(state, state="submitted", attempts=attempts, seconds=seconds, why="in the queue again")
    if run.code in INTERRUPTED:
        return replace(state, state="stopped", attempts=attempts, seconds=seconds, why="")
    return replace(state, state="failed", attempts=attempts, seconds=seconds, why=f"exit code {run.code}")


def slurm_states(job_ids: Sequence[str]) -> dict[str, str]:
    """SLURM's word for each job by number; {} without sacct."""
    if not job_ids or shutil.which("sacct") is None:
        return {}
    command = ["sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", ",".join(job_ids)]
    asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    rows = [line.split("|") for line in asked.stdout.splitlines() if "|" in line]
    return {row[0]: row[1].split()[0] for row in rows if row[1].split()}


def refuse_live(model: Path, states: Sequence[JobState]) -> None:
    """Refuse to start processes here while jobs of a scheduler that is gone, or of SLURM, are still to end.

    Raises:
        UserError: names the job and its process.
    """
    for state in states:
        run = read_run(model / state.folder) if state.folder and state.state == "running" else None
        if run is not None and run.alive:
            raise UserError(
                f"job {state.job.name} of an earlier train-all still runs",
                file=model / RECORD_FILE,
                found=f"process {run.pid}",
                remedy=f"Wait until it has ended, or end it with kill {run.pid} (it saves first)",
            )
        if state.state == "submitted":
            raise UserError(
                f"job {state.job.name} is in SLURM's queue",
                file=model / RECORD_FILE,
                found=f"SLURM job {state.job_id}",
                remedy="Wait for it, or end it with scancel; --status shows how far it is",
            )
        if run is not None and run.ended is None:
            raise UserError(
                f"job {state.job.name} runs on another machine",
                file=model / str(state.folder) / RUN_FILE,
                found=f"process {run.pid} on {run.host}",
                remedy="Wait for it, or end it there; if it is certainly dead, delete this file",
            )


def _with_slurm(state: JobState, word: str | None) -> JobState:
    """What SLURM says wins over the files: it knows of kills and of the queue."""
    if word is None or state.state == "done":
        return state
    if word in _QUEUED:
        return replace(state, state="submitted", why="in the queue")
    if word in _ALIVE:
        return replace(state, state="running", why="")
    if word == "COMPLETED":
        return replace(state, state="done", why="")
    why = state.why if state.state == "failed" else f"SLURM: {word}"  # the job's own word is the better one
    return replace(state, state="failed", why=why)
