"""``nndet_psma train-all``: every fold and stage of a task as a graph of jobs, here or on a SLURM cluster."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nndet_psma.cli.arguments import add_overwrites, add_task, console, say

if TYPE_CHECKING:
    from nndet_psma.cli.config import AnyConfig
    from nndet_psma.jobs.record import JobState
    from nndet_psma.stages.train_all import FanOut

Number = TypeVar("Number", int, float)

EXIT_FAILED_JOBS = 1
_SIGNAL_CODES = 128  # of a shell: 130 after Ctrl-C, 143 after SIGTERM
_SLURM_ONLY = ("partition", "time", "mem", "slurm")
_LOCAL_ONLY = ("jobs", "per_gpu")
_COMMANDS = {"nndet_train": "train", "nndet_sweep": "sweep", "nndet_consolidate": "consolidate"}


def build_parser() -> argparse.ArgumentParser:
    """Arguments of our own; nnDetection has no such command."""
    parser = argparse.ArgumentParser(
        prog="nndet_psma train-all",
        description="Train every fold: one job per stage, each when the stage it starts from is done. "
        "Starting the same command again goes on with what is missing.",
    )
    add_task(parser)
    add_overwrites(parser)
    add = parser.add_argument
    add("--executor", choices=("local", "slurm", "debug"), default="local", help="default %(default)s")
    add("--folds", type=int, nargs="+", metavar="K", help="folds (default: all of the plan)")
    add("--sweep", action="store_true", help="tune the thresholds of every fold when its stages are done")
    add("--consolidate", action="store_true", help="combine the folds at the end, tuned on all of them")
    add("--retries", type=_count, default=2, metavar="N", help="restarts of a failed job (default 2)")
    add("--dry-run", action="store_true", help="print the jobs, start and write nothing")
    add("--status", action="store_true", help="print how far the jobs are, start and write nothing")
    add("--jobs", type=_at_least_one, metavar="N", help="local: most jobs at once (default: what GPUs hold)")
    add("--per-gpu", type=_per_gpu, metavar="N|auto", help="local: most jobs per GPU (default auto: memory)")
    add("--poll", type=_seconds, default=2.0, metavar="SECONDS", help="between looks at jobs (default 2)")
    add("--partition", help="slurm: partition")
    add("--time", type=_at_least_one, metavar="MIN", help="slurm: minutes per job (default 1440)")
    add("--mem", type=_seconds, metavar="GB", help="slurm: memory of the machine per job")
    add("--slurm", nargs="+", action="extend", metavar="KEY=VALUE", help="slurm: more options of sbatch")
    return parser


def run(args: argparse.Namespace) -> int:
    """Plan the jobs and do what is asked with them."""
    from nndet_psma.cli.config import config_for_task
    from nndet_psma.cli.plan import plan_file
    from nndet_psma.dataset.task.paths import find_task, models_root
    from nndet_psma.jobs.graph import check_overrides

    _check_flags(args)
    check_overrides(args.overwrites)
    paths = find_task(args.task)
    config = config_for_task(paths, args.overwrites, lambda text: None)  # every job says it itself
    plan_file(paths, str(config.plan))
    if args.status:
        return _status(args, paths, models_root(), config)
    if args.executor == "slurm":
        return _slurm(args, _plan(args, paths, models_root(), config, args.overwrites))
    return _local(args, paths, models_root(), config)


def run_command_line(command: list[str]) -> int:
    """Run one of our commands in this process, as a job does; returns its exit code."""
    main: Callable[[Sequence[str]], int] = import_module(f"nndet_psma.cli.{_COMMANDS[command[0]]}").main
    return main(command[1:])


def _plan(
    args: argparse.Namespace, paths: Any, models: Path, config: AnyConfig, overrides: Sequence[str]
) -> Any:
    from nndet_psma.stages.train_all import Wish, plan_fan_out

    return plan_fan_out(paths, models, config, Wish(args.folds, overrides, args.sweep, args.consolidate))


def _local(args: argparse.Namespace, paths: Any, models: Path, config: AnyConfig) -> int:
    from nndet_psma.jobs.local import debug_runner, local_runner
    from nndet_psma.jobs.scheduler import Scheduler

    fan_out = _plan(args, paths, models, config, args.overwrites)
    slots = [None] if args.executor == "debug" else _slots(args, fan_out)
    shared = _shared_cores(len(slots), config)
    if shared:  # the jobs share the cores
        fan_out = _plan(args, paths, models, config, [*args.overwrites, shared])
    if args.dry_run:
        return _dry_run(fan_out, f"at most {len(slots)} at once")
    runner = (debug_runner if args.executor == "debug" else local_runner)(run_command_line)
    with _Watch(fan_out) as watch:
        scheduler = Scheduler(
            model=fan_out.model,
            states=fan_out.states,
            executor=args.executor,
            runner=runner,
            slots=slots,
            environment=_environment(len(slots)),
            retries=args.retries,
            poll=args.poll,
            report=watch,
        )
        stopped = scheduler.run()
    _print_table(fan_out, scheduler.result())
    if stopped is not None:
        sys.stderr.write(
            "nndet_psma train-all: interrupted, the jobs were ended; start the same command again to go on\n"
        )
        return _SIGNAL_CODES + stopped
    return _report_failures(fan_out, scheduler.result())


def _slurm(args: argparse.Namespace, fan_out: FanOut) -> int:
    from nndet_psma.jobs.slurm import SlurmOptions, parse_extra, submit_jobs

    options = SlurmOptions(
        partition=args.partition,
        minutes=args.time or SlurmOptions.minutes,
        memory_gb=args.mem,
        gpus=1 if fan_out.plan.target.device == "gpu" else 0,
        retries=args.retries,
        extra=parse_extra(args.slurm or []),
    )
    if args.dry_run:
        return _dry_run(fan_out, "in SLURM's order")
    states = submit_jobs(fan_out.model, fan_out.states, options, run_command_line)
    _print_table(fan_out, states)
    say("SLURM does the rest; look with --status, start the same command again for what failed")
    return 0


def _status(args: argparse.Namespace, paths: Any, models: Path, config: AnyConfig) -> int:
    from nndet_psma.core.errors import UserError
    from nndet_psma.jobs.status import current_states

    fan_out = _plan(args, paths, models, config, args.overwrites)
    states = current_states(fan_out.model)
    if not states:
        raise UserError("train-all never ran here", file=fan_out.model, remedy="Start it without --status")
    _print_table(fan_out, states)
    return EXIT_FAILED_JOBS if any(state.state == "failed" for state in states) else 0


def _dry_run(fan_out: FanOut, how: str) -> int:
    left = [state for state in fan_out.states if state.state != "done"]
    for state in fan_out.states:
        after = f" after {', '.join(state.job.needs)}" if state.job.needs else ""
        done = " (done)" if state.state == "done" else ""
        say(f"{state.job.name}{after}{done}\n    {shlex.join(state.job.command)}")
    say(f"{len(left)} of {len(fan_out.states)} jobs to run, {how}")
    return 0


def _slots(args: argparse.Namespace, fan_out: FanOut) -> list[str | None]:
    from nndet_psma.jobs.slots import job_slots, visible_gpus

    gpus = visible_gpus()
    wanted = args.per_gpu
    system, plan, settings = fan_out.system, fan_out.plan, fan_out.config.trainer_cfg
    counts = [
        wanted if isinstance(wanted, int) else system.jobs_per_gpu(plan, settings, gpu.memory_gb)
        for gpu in gpus
    ]
    return job_slots(gpus, args.jobs, counts)


def _shared_cores(slots: int, config: AnyConfig) -> str | None:
    """Override for the loader processes of each of several jobs; None where the trainer or the user decides."""
    from nndet_psma.cli.config import system_of_config
    from nndet_psma.core.workers import usable_cores

    key = system_of_config(config).workers_key
    if slots == 1 or key is None or getattr(config.trainer_cfg, key) is not None:
        return None
    return f"trainer_cfg.{key}={max(1, usable_cores() // slots - 1)}"


def _environment(slots: int) -> dict[str, str]:
    """Threads of each of several jobs, unless the user has chosen."""
    import os

    from nndet_psma.core.workers import usable_cores

    if slots == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, usable_cores() // slots))}


class _Watch:
    """Shows the jobs while they run: a live table on a terminal, else one line per change."""

    def __init__(self, fan_out: FanOut) -> None:
        self.fan_out = fan_out
        self._seen: dict[str, str] = {state.job.name: state.state for state in fan_out.states}
        self._live: Any = None

    def __enter__(self) -> _Watch:
        if sys.stdout.isatty():
            from rich.live import Live

            # transient: the final table is printed by itself
            self._live = Live(console=console(), auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, states: list[JobState]) -> None:
        if self._live is not None:
            self._live.update(_table(self.fan_out, states), refresh=True)
            return
        for state in states:
            text = f"{state.state} (attempt {state.attempts})" if state.state == "running" else state.state
            text += f": {state.why}" if state.why else ""
            if self._seen[state.job.name] != text:
                self._seen[state.job.name] = text
                say(f"{state.job.name}: {text}")


def _table(fan_out: FanOut, states: list[JobState]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    from nndet_psma.jobs.table import COLUMNS, counts_text, table_rows

    title = f"{fan_out.plan.task}, {fan_out.model.name}: {counts_text(states)}"
    plain: dict[str, Any] = (
        {} if sys.stdout.isatty() else {"box": None, "title_justify": "left", "pad_edge": False}
    )
    table = Table(*COLUMNS, title=title, **plain)
    for row in table_rows(states, fan_out.model):
        table.add_row(*(escape(cell) for cell in row))
    return table


def _print_table(fan_out: FanOut, states: list[JobState]) -> None:
    console().print(_table(fan_out, states))


def _report_failures(fan_out: FanOut, states: list[JobState]) -> int:
    """The end of every failed job's log on standard error; the exit code."""
    from nndet_psma.jobs.record import last_lines, log_file

    failed = [state for state in states if state.state == "failed"]
    for state in failed:
        folder = fan_out.model / (state.folder or "")
        sys.stderr.write(f"{state.job.name} failed ({state.why}, attempts: {state.attempts})\n")
        if log_file(folder) is not None:
            sys.stderr.write(f"    end of {log_file(folder)}:\n")
            sys.stderr.writelines(f"    {line}\n" for line in last_lines(folder))
    return EXIT_FAILED_JOBS if failed else 0


def _check_flags(args: argparse.Namespace) -> None:
    from nndet_psma.core.errors import UserError

    foreign = _LOCAL_ONLY if args.executor == "slurm" else _SLURM_ONLY
    for name in foreign:
        if getattr(args, name) is not None:
            other = "local" if args.executor == "slurm" else "slurm"
            raise UserError(
                f"--{name.replace('_', '-')} belongs to --executor {other}",
                found=f"--executor {args.executor}",
                remedy="Leave it out, or change --executor",
            )
    if args.status and args.dry_run:
        raise UserError("--status and --dry-run cannot be combined", remedy="Take one of them")


def _count(text: str) -> int:
    return _number(text, int, 0)


def _at_least_one(text: str) -> int:
    return _number(text, int, 1)


def _per_gpu(text: str) -> int | str:
    return text if text == "auto" else _number(text, int, 1)


def _seconds(text: str) -> float:
    return _number(text, float, 0.01)


def _number(text: str, kind: Callable[[str], Number], least: float) -> Number:
    value: Number | None
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not least <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least {least:g}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
