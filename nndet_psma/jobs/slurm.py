"""Jobs in SLURM's queue through submitit: all are submitted at once, SLURM itself keeps the order.

A job depends on those it needs by ``--dependency=afterok``, so the submitting process need not stay alive. Written
after submitit's and SLURM's documentation; tested with stand-ins for ``sbatch``, ``sacct`` and ``scontrol``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nndet_psma.core.errors import UserError
from nndet_psma.jobs.local import import_submitit
from nndet_psma.jobs.record import RECORD_FILE, JobState, TrainAllRecord, jobs_lock, next_attempt
from nndet_psma.jobs.status import current_states
from nndet_psma.jobs.work import JobWork

_OWN_KEYS = ("dependency", "kill_on_invalid_dep", "job_name", "folder", "command")
_DEFAULT_MINUTES = 24 * 60


@dataclass(frozen=True)
class SlurmOptions:
    """What a job asks SLURM for.

    Attributes:
        partition: None for the cluster's default.
        minutes: time limit; a job that reaches it goes back into the queue and on from its checkpoint.
        memory_gb: of the machine, not of the GPU; None for the cluster's default.
        gpus: per job.
        retries: how often a job that fails goes back into the queue.
        extra: more keys of sbatch, e.g. ``account`` or ``cpus_per_task``.
    """

    partition: str | None = None
    minutes: int = _DEFAULT_MINUTES
    memory_gb: float | None = None
    gpus: int = 1
    retries: int = 2
    extra: Mapping[str, str] = field(default_factory=dict)


def parse_extra(pairs: Sequence[str]) -> dict[str, str]:
    """``KEY=VALUE`` of ``--slurm`` with hyphens as underscores; UserError for another form or a key of our own."""
    extra = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.lstrip("-").replace("-", "_")
        if not equals or not key:
            raise UserError("--slurm takes KEY=VALUE", found=pair, remedy="For example --slurm account=lab")
        if key in _OWN_KEYS:
            raise UserError(f"--slurm {key} is set by train-all", found=pair, remedy="Leave it out")
        extra[key] = value
    return extra


def sbatch_parameters(job: str, options: SlurmOptions, needs: Sequence[str]) -> dict[str, Any]:
    """Parameters for submitit's AutoExecutor; keys it does not know go to sbatch as they are.

    Args:
        job: name in the queue.
        options: what is asked for.
        needs: SLURM's numbers of the jobs that must end well first.
    """
    known = import_submitit().SlurmExecutor._valid_parameters()
    parameters: dict[str, Any] = {
        "name": job,
        "timeout_min": options.minutes,
        "slurm_partition": options.partition,
        "mem_gb": options.memory_gb,
        "gpus_per_node": options.gpus or None,
        "nodes": 1,
        "tasks_per_node": 1,
        "stderr_to_stdout": True,
    }
    additional: dict[str, Any] = {}
    if needs:
        # without the second, a job whose needs failed would wait in the queue for ever
        additional = {"dependency": "afterok:" + ":".join(needs), "kill-on-invalid-dep": "yes"}
    for key, value in options.extra.items():
        number = int(value) if value.isdigit() else value
        if key in ("nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node"):
            parameters[key] = number
        elif key in known:
            parameters[f"slurm_{key}"] = number
        else:
            additional[key.replace("_", "-")] = value
    parameters["slurm_additional_parameters"] = additional or None
    return {key: value for key, value in parameters.items() if value is not None}


def submit_jobs(
    model: Path,
    states: Sequence[JobState],
    options: SlurmOptions,
    main: Callable[[list[str]], int],
) -> list[JobState]:
    """Submit every job that is neither done nor in the queue already; the record is written after each.

    Raises:
        UserError: no SLURM here, or sbatch refuses (its message; what was submitted before stands in the record).
    """
    with jobs_lock(model):
        earlier = current_states(model)
        queued = {s.job.name: s for s in earlier if s.state in ("submitted", "running")}
        now = {s.job.name: queued.get(s.job.name, s) for s in states}
        others = [s for s in earlier if s.job.name not in now]
        for name, state in now.items():
            if state.state in ("done", "submitted", "running"):
                continue
            needs = [now[need] for need in state.job.needs]
            waits = [str(need.job_id) for need in needs if need.state != "done"]
            now[name] = _submit(model, state, options, waits, main)
            TrainAllRecord("slurm", [*others, *now.values()]).write(model / RECORD_FILE)
        return list(now.values())


def _submit(
    model: Path,
    state: JobState,
    options: SlurmOptions,
    waits: Sequence[str],
    main: Callable[[list[str]], int],
) -> JobState:
    submitit = import_submitit()
    folder = next_attempt(model, state.job.name)
    work = JobWork(main, slurm_retries=options.retries)
    try:
        executor = submitit.AutoExecutor(
            folder=folder, cluster="slurm", slurm_max_num_timeout=options.retries
        )
        executor.update_parameters(**sbatch_parameters(f"psma-{state.job.name}", options, waits))
        job = executor.submit(work, state.job.command, str(folder))
    except (RuntimeError, OSError) as error:  # no srun here; sbatch refused
        raise UserError(
            f"job {state.job.name} cannot be submitted to SLURM",
            found=" ".join(str(error).split()),
            remedy="Run it where sbatch works, or take --executor local",
        ) from None
    return replace(
        state,
        state="submitted",
        attempts=0,
        seconds=0.0,
        folder=str(folder.relative_to(model)),
        job_id=str(job.job_id),
        why=f"after {', '.join(waits)}" if waits else "in the queue",
    )
