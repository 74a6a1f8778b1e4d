"""The scheduler: starts jobs when what they need is done, restarts them when they fail, ends them gently when asked."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nndet_psma.jobs.graph import Job, ready_jobs
from nndet_psma.jobs.local import Runner, Running
from nndet_psma.jobs.record import (
    RECORD_FILE,
    JobState,
    TrainAllRecord,
    jobs_lock,
    next_attempt,
    read_run,
)
from nndet_psma.jobs.status import current_states, refuse_live
from nndet_psma.jobs.work import USER_ERROR

_TICK = 0.2  # seconds between looks at a signal that came


@dataclass
class Scheduler:
    """Runs jobs at most ``len(slots)`` at a time and keeps ``train_all.json`` up to date.

    Attributes:
        model: model folder.
        states: of :func:`plan_fan_out`.
        executor: name for the record.
        runner: starts an attempt.
        slots: one per job that may run at once: the GPU it gets, or None.
        environment: variables of every job.
        retries: restarts of a job that fails or is killed; a user error (exit code 2) is never tried again.
        poll: seconds between looks at the running jobs.
        report: called with all states after every change, and every ``poll`` seconds.
    """

    model: Path
    states: list[JobState]
    executor: str
    runner: Runner
    slots: Sequence[str | None]
    environment: dict[str, str] = field(default_factory=dict)
    retries: int = 2
    poll: float = 2.0
    report: Callable[[list[JobState]], None] = lambda states: None

    def __post_init__(self) -> None:
        self._now = {state.job.name: state for state in self.states}
        self._jobs = [state.job for state in self.states]
        self._running: dict[str, tuple[Running, Path, int]] = {}
        self._others: list[JobState] = []
        self._lock = jobs_lock(self.model)

    def run(self) -> int | None:
        """Run until all is done, or nothing that is left can start.

        Returns:
            None, or the signal that ended it. Running jobs were asked to save and have ended by then; a second signal
            ends them at once.

        Raises:
            UserError: another scheduler is at work in this folder, or jobs of one that was killed still run.
        """
        with self._lock, _StopRequest() as stop:
            earlier = current_states(self.model)
            refuse_live(self.model, earlier)
            self._others = [state for state in earlier if state.job.name not in self._now]
            while stop.number is None:
                self._collect()
                self._start()
                self._save()
                if not self._running:
                    return None
                stop.sleep(self.poll)
            self._wind_down(stop)
            return stop.number

    def result(self) -> list[JobState]:
        """All states, in order."""
        return [self._now[job.name] for job in self._jobs]

    def _start(self) -> None:
        taken = {slot for _, _, slot in self._running.values()}
        free = [slot for slot in range(len(self.slots)) if slot not in taken]
        for job in ready_jobs(self._jobs, {name: state.state for name, state in self._now.items()}):
            if not free:
                return
            self._start_job(job, free.pop(0))

    def _start_job(self, job: Job, slot: int) -> None:
        folder, gpu = next_attempt(self.model, job.name), self.slots[slot]
        environment = dict(self.environment)
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        run = self.runner(job.command, folder, environment)
        self._running[job.name] = (run, folder, slot)
        self._set(
            job,
            state="running",
            attempts=self._now[job.name].attempts + 1,
            folder=str(folder.relative_to(self.model)),
            job_id=run.job_id,
            gpu=gpu,
        )

    def _collect(self) -> None:
        for name, (run, folder, _) in list(self._running.items()):
            if run.done():
                del self._running[name]
                self._end(self._now[name], folder)

    def _end(self, state: JobState, folder: Path, *, stopping: bool = False) -> None:
        run = read_run(folder)
        code = None if run is None else run.code
        seconds = state.seconds + (0.0 if run is None else (run.ended or time.time()) - run.started)
        if code == 0 and has_result(state.job, self.model):
            self._set(state.job, state="done", seconds=seconds, why="")
            return
        why = "was killed" if code is None else f"exit code {code}"
        if code == 0:
            why = "ended without a result"
        if stopping:
            self._set(state.job, state="stopped", seconds=seconds, why="")
        elif code == USER_ERROR or state.attempts > self.retries:
            self._set(state.job, state="failed", seconds=seconds, why=why)
        else:
            self._set(state.job, state="waiting", seconds=seconds, why=f"once more after: {why}")

    def _wind_down(self, stop: _StopRequest) -> None:
        """Let the running jobs save; kill them when asked a second time."""
        asked = stop.count
        for run, _, _ in self._running.values():
            run.stop()
        while self._running:
            if stop.count > asked:
                asked = stop.count
                for run, _, _ in self._running.values():
                    run.kill()
            for name, (run, folder, _) in list(self._running.items()):
                if run.done():
                    del self._running[name]
                    self._end(self._now[name], folder, stopping=True)
            self._lock.beat()
            time.sleep(_TICK)
        self._save()

    def _set(self, job: Job, **changes: Any) -> None:
        self._now[job.name] = replace(self._now[job.name], **changes)

    def _save(self) -> None:
        record = TrainAllRecord(self.executor, [*self._others, *self.result()])
        file = self.model / RECORD_FILE
        if not file.is_file() or TrainAllRecord.read(file) != record:
            record.write(file)
        self._lock.beat()
        self.report(self.result())


class _StopRequest:
    """Ctrl-C and SIGTERM as a wish that is noted, not as an exception in the middle of something."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.count = 0

    def __enter__(self) -> _StopRequest:
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        self.number = number
        self.count += 1

    def sleep(self, seconds: float) -> None:
        """Until ``seconds`` are over or a signal comes."""
        end = time.monotonic() + seconds
        while self.number is None and time.monotonic() < end:
            time.sleep(min(_TICK, seconds))


def has_result(job: Job, model: Path) -> bool:
    """Whether what a job leaves behind is there."""
    return (model / job.result).is_file()
