"""The scheduler: logic with jobs that only pretend to run, and real processes of submitit with a tiny trainer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from artifact_samples import PLAN
from plan_jobs import plan_jobs
from tiny_place import TASK, environment, snapshot

from nndet_psma.cli.config import compose_config
from nndet_psma.cli.train_all import main, run_command_line
from nndet_psma.core.errors import UserError
from nndet_psma.jobs.local import debug_runner, local_runner
from nndet_psma.jobs.record import JobRun, JobState, TrainAllRecord, last_lines, read_run
from nndet_psma.jobs.scheduler import Scheduler, has_result
from nndet_psma.jobs.status import current_states
from nndet_psma.jobs.table import stage_steps, table_rows
from nndet_psma.jobs.work import JobWork
from nndet_psma.stages.train_all import Wish, merge_states, plan_fan_out
from nndet_psma.trainers.registry import TRAINERS

pytest.importorskip("submitit")

# Work that behaves as $FLAKY says: "wsi=fail:1" fails at the first call of a stage called wsi, "1/wsi=fail:9" only in
# fold 1. ``run`` takes the place of nndet_train, which would import PyTorch in every process.
FLAKY_JOB = """
import os, time
from pathlib import Path

def run(command):
    keys = dict(word.split("=") for word in command if word.startswith("exp."))
    return work(Path(os.environ["FLAKY_MODEL"]) / f"fold{keys['exp.fold']}", keys["exp.voter"])

def work(fold, stage):
    folder = fold / stage
    (folder / "checkpoint").mkdir(parents=True, exist_ok=True)
    if stage != "wsi" and not (fold / "wsi/model.safetensors").is_file():
        raise RuntimeError("started before its parent was there")
    calls = folder / "calls"
    with calls.open("a") as file:
        file.write(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}\\n")
    number = len(calls.read_text().splitlines())
    for wish in os.environ.get("FLAKY", "").split():
        name, what, times = wish.replace("=", ":").split(":")
        if name in (stage, f"{fold.name}/{stage}") and number <= int(times):
            (folder / "checkpoint/progress.json").write_text('{"step": 3}')
            misbehave(what, folder)
    (folder / "model.safetensors").write_text("weights")
    return 0

def misbehave(what, folder):
    if what == "fail":
        raise RuntimeError("out of luck")
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        with (folder / "saved").open("a") as file:
            file.write("saved\\n")
        raise
"""
FLAKY_TRAINER = """
from flaky_job import work
from nndet_psma.trainers.registry import TRAINERS
from nndet_psma.trainers.settings import stages_for

@TRAINERS.register
class FlakyTrainer:
    def train(self, job):
        work(job.folder, stages_for(job.plan, job.voter)[-1].name)
"""
OPTIONS = ["module=FlakyTrainer"]


@pytest.fixture
def flaky(in_task, tmp_path, monkeypatch):
    """The tiny task with a trainer, and jobs, that behave as $FLAKY says, here and in other processes."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "flaky_job.py").write_text(FLAKY_JOB)
    (code / "flaky_trainer.py").write_text(FLAKY_TRAINER)
    monkeypatch.syspath_prepend(str(code))
    monkeypatch.setenv("PYTHONPATH", f"{code}{os.pathsep}{Path.cwd()}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("FLAKY_MODEL", str(_model(in_task)))
    monkeypatch.setattr(TRAINERS, "_classes", dict(TRAINERS._classes))  # what is registered here ends here
    yield in_task
    sys.modules.pop("flaky_job", None)  # the next test has its own copy
    sys.modules.pop("flaky_trainer", None)


def _flaky_run():
    return import_module("flaky_job").run


def _train_all(*arguments):
    return main(["900", "--poll", "0.05", *arguments])


def _model(place):
    return place.models / TASK / "FlakyTrainer_PSMA25D"


def _states(place):
    return {state.job.name: state for state in TrainAllRecord.read(_model(place) / "train_all.json").jobs}


def _calls(place, name):
    return (_model(place) / name / "calls").read_text().splitlines()


# ---- real processes


def test_every_stage_once_failures_again_finished_never(flaky, monkeypatch, capsys):
    monkeypatch.setenv("FLAKY", "wsi=fail:1")
    monkeypatch.setattr("nndet_psma.cli.train_all.run_command_line", _flaky_run())
    arguments = ["--folds", "0", "--jobs", "2", "-o", *OPTIONS]
    assert _train_all(*arguments) == 0
    text = capsys.readouterr().out
    assert "fold0/wsi: running (attempt 2): once more after: exit code 1" in text
    states = _states(flaky)
    first, *voters = (stage.name for stage in flaky.plan.stages)
    assert {name: (s.state, s.attempts) for name, s in states.items()} == {
        "fold0/wsi": ("done", 2),
        **{f"fold0/{name}": ("done", 1) for name in voters},
    }
    # a stage is trained by its own job only: two calls of wsi, one of each voter, in a process each
    calls = [line.split()[0] for name in (first, *voters) for line in _calls(flaky, f"fold0/{name}")]
    assert len(calls) == len(set(calls)) == 2 + len(voters)
    jobs = _model(flaky) / "jobs"
    assert "RuntimeError: out of luck" in last_lines(jobs / "fold0-wsi/1")
    assert not list(jobs.rglob("*.pkl"))
    before = snapshot(_model(flaky))
    assert _train_all(*arguments) == 0
    assert "running" not in capsys.readouterr().out
    assert snapshot(_model(flaky)) == before


def test_gives_up_and_independent_jobs_go_on(flaky, monkeypatch, capsys):
    monkeypatch.setenv("FLAKY", "fold1/wsi=fail:9")
    monkeypatch.setattr("nndet_psma.cli.train_all.run_command_line", _flaky_run())
    assert _train_all("--jobs", "2", "--retries", "1", "-o", *OPTIONS) == 1
    captured = capsys.readouterr()
    states = {name: (s.state, s.attempts) for name, s in _states(flaky).items()}
    assert states.pop("fold1/wsi") == ("failed", 2)
    assert {state for name, state in states.items() if name.startswith("fold0")} == {("done", 1)}
    assert {state for name, state in states.items() if name.startswith("fold1")} == {("waiting", 0)}
    assert "fold1/wsi failed (exit code 1, attempts: 2)\n    end of " in captured.err
    assert "RuntimeError: out of luck" in captured.err
    assert "fold1/wsi failed" in captured.out  # the note of what waits for it
    # the status says the same from files alone, and the voters of fold 1 still have no folder
    assert _train_all("--status", "-o", *OPTIONS) == 1
    assert "failed 3/" in capsys.readouterr().out
    assert not (_model(flaky) / f"fold1/{flaky.plan.voters[0].name}").exists()


def _one_job(place, run=None, overrides=(), **options):
    """A scheduler of the whole-slice stage of fold 0 alone."""
    overrides = [*OPTIONS, *overrides]
    config = compose_config(TASK, overrides)
    fan_out = plan_fan_out(place.paths, place.models, config, Wish([0], overrides))
    runner = local_runner(run or _flaky_run())
    options = {"executor": "local", "runner": runner, "slots": [None], "poll": 0.05, **options}
    return Scheduler(model=fan_out.model, states=fan_out.states[:1], **options)


def test_job_is_nndet_train_itself(flaky, monkeypatch):
    """With a trainer of the user's own, which fails once."""
    monkeypatch.setenv("FLAKY", "wsi=fail:1")
    scheduler = _one_job(flaky, run_command_line, ["additional_imports=[flaky_trainer]"])
    assert scheduler.run() is None
    assert (scheduler.result()[0].state, scheduler.result()[0].attempts) == ("done", 2)
    assert "RuntimeError: out of luck" in last_lines(_model(flaky) / "jobs/fold0-wsi/1")
    config = (_model(flaky) / "fold0/config.yaml").read_text()
    assert "voter: wsi" in config


def test_killed_job_starts_again(flaky, monkeypatch):
    monkeypatch.setenv("FLAKY", "wsi=hang:1")
    killed = []

    def kill_once(states):
        run = read_run(_model(flaky) / states[0].folder)
        if (
            not killed
            and run is not None
            and (_model(flaky) / "fold0/wsi/checkpoint/progress.json").is_file()
        ):
            os.kill(run.pid, signal.SIGKILL)
            killed.append(run.pid)

    scheduler = _one_job(flaky, report=kill_once, slots=["7"])
    assert scheduler.run() is None
    (state,) = scheduler.result()
    assert (state.state, state.attempts, state.gpu) == ("done", 2, "7")
    calls = _calls(flaky, "fold0/wsi")
    assert calls[0] == f"{killed[0]} 7"  # it saw the GPU it was given
    assert read_run(_model(flaky) / "jobs/fold0-wsi/1").code is None


def test_sigterm_ends_the_jobs_gently(flaky, monkeypatch):
    monkeypatch.setenv("FLAKY", "wsi=hang:1")
    progress = _model(flaky) / "fold0/wsi/checkpoint/progress.json"
    sent = []

    def stop_once(states):
        if not sent and progress.is_file():
            sent.append(os.kill(os.getpid(), signal.SIGTERM))

    scheduler = _one_job(flaky, report=stop_once)
    before = signal.getsignal(signal.SIGTERM)
    assert scheduler.run() == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    assert (_model(flaky) / "fold0/wsi/saved").read_text() == "saved\n"
    assert scheduler.result()[0].state == _states(flaky)["fold0/wsi"].state == "stopped"
    again = _one_job(flaky)
    assert again.run() is None
    assert (again.result()[0].state, again.result()[0].attempts) == ("done", 1)
    assert sorted(path.name for path in (_model(flaky) / "jobs/fold0-wsi").iterdir()) == ["1", "2"]


def test_ctrl_c_of_a_terminal_reaches_the_scheduler_only(flaky, monkeypatch):
    """A terminal sends SIGINT to the whole group of processes; the job must hear of it once, as SIGTERM."""
    code = (
        "import sys, flaky_job; from nndet_psma.cli import train_all\n"
        "train_all.run_command_line = flaky_job.run\n"
        "sys.exit(train_all.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "900", "--folds", "0", "--poll", "0.05", "-o", *OPTIONS]
    variables = {**environment(flaky), "FLAKY": "wsi=hang:1"}
    scheduler = subprocess.Popen(
        command, env=variables, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    progress = _model(flaky) / "fold0/wsi/checkpoint/progress.json"
    deadline = time.monotonic() + 60
    while not progress.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(scheduler.pid, signal.SIGINT)
    _, error = scheduler.communicate(timeout=60)
    assert scheduler.returncode == 130, error
    assert "interrupted, the jobs were ended; start the same command again to go on" in error
    assert (_model(flaky) / "fold0/wsi/saved").read_text() == "saved\n"
    assert _states(flaky)["fold0/wsi"].state == "stopped"


# ---- logic, with attempts that have ended as soon as they begin


class Pretender:
    """Runner whose attempts end with the exit codes it was given, by job; None is a killed one."""

    def __init__(self, model, **codes):
        self.model, self.codes, self.order, self.environments = model, codes, [], []

    def __call__(self, command, folder, environment):
        job = folder.parent.name
        self.order.append(job)
        self.environments.append(environment)
        codes = self.codes.get(job.replace("-", "_"), [0])
        code = codes.pop(0) if len(codes) > 1 else codes[0]
        JobRun("host", 1, 100.0, None if code is None else 107.0, code).write(folder / "run.json")
        if code == 0 and job.startswith("fold"):
            _leave_weights(self.model, *job.split("-"))
        return Ended()


class Ended:
    job_id = "1"
    done = staticmethod(lambda: True)
    stop = kill = staticmethod(lambda: None)


def _leave_weights(model, fold, stage):
    file = model / fold / stage / "model.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("weights")


def _fresh(folds=(0,), **options):
    return [JobState(job, "hash") for job in plan_jobs(PLAN, folds, "T", "M", **options)]


def _run(model, runner, states=None, **options):
    options = {"slots": [None], "poll": 0.01, **options}
    scheduler = Scheduler(model=model, states=states or _fresh(), executor="local", runner=runner, **options)
    assert scheduler.run() is None
    return {state.job.name: state for state in scheduler.result()}


def test_one_after_another_in_order(tmp_path):
    runner = Pretender(tmp_path)
    states = _run(tmp_path, runner)
    assert runner.order == ["fold0-wsi", "fold0-narrow", "fold0-both"]
    assert [(s.state, s.attempts, s.seconds) for s in states.values()] == [("done", 1, 7.0)] * 3
    assert states["fold0/both"].folder == "jobs/fold0-both/1"


def test_two_gpus_take_two_folds(tmp_path):
    """Both whole-slice stages start at once; voters take what becomes free, in order."""
    runner = Pretender(tmp_path)
    _run(tmp_path, runner, _fresh([0, 1]), slots=["4", "5"], environment={"A": "b"})
    assert runner.order[:2] == ["fold0-wsi", "fold1-wsi"]
    assert runner.environments[:2] == [
        {"A": "b", "CUDA_VISIBLE_DEVICES": "4"},
        {"A": "b", "CUDA_VISIBLE_DEVICES": "5"},
    ]
    assert sorted(runner.order) == sorted(
        f"fold{k}-{name}" for k in (0, 1) for name in ("wsi", "narrow", "both")
    )


@pytest.mark.parametrize(
    ("codes", "state", "attempts", "why"),
    [
        ([0], "done", 1, ""),
        ([1, None, 0], "done", 3, ""),
        ([None], "failed", 3, "was killed"),
        ([1], "failed", 3, "exit code 1"),
        ([2], "failed", 1, "exit code 2"),  # the user's mistake does not mend itself
    ],
)
def test_restarts(tmp_path, codes, state, attempts, why):
    states = _run(tmp_path, Pretender(tmp_path, fold0_wsi=codes), retries=2)
    wsi = states["fold0/wsi"]
    assert (wsi.state, wsi.attempts, wsi.why) == (state, attempts, why)
    assert states["fold0/narrow"].state == ("done" if state == "done" else "waiting")


def test_exit_code_0_without_weights_is_a_failure(tmp_path):
    runner = Pretender(tmp_path / "elsewhere")
    states = _run(tmp_path, runner, retries=0)
    assert (states["fold0/wsi"].state, states["fold0/wsi"].why) == ("failed", "ended without a result")


def test_other_folds_stay_in_the_record(tmp_path):
    _run(tmp_path, Pretender(tmp_path))
    _run(tmp_path, Pretender(tmp_path), _fresh([1]))
    assert {state.job.fold for state in current_states(tmp_path)} == {0, 1}
    assert len(current_states(tmp_path)) == 6


def test_what_an_earlier_run_has_done(tmp_path):
    states = list(_run(tmp_path, Pretender(tmp_path), _fresh(sweep=True), retries=0).values())
    (tmp_path / "fold0/plan_inference.json").write_text("{}")
    states = [replace(state, state="done") for state in states]
    jobs = [state.job for state in states]
    same = {job.name: "hash" for job in jobs}

    def left(hashes=same, earlier=states):
        return [s.job.name for s in merge_states(jobs, hashes, earlier, tmp_path) if s.state != "done"]

    assert left() == []
    assert left({**same, "fold0/narrow": "other"}) == ["fold0/narrow", "sweep0"]  # and what comes after it
    assert left({**same, "sweep0": "other"}) == ["sweep0"]
    failed = [replace(s, state="failed") if s.job.name == "fold0/both" else s for s in states]
    assert left(earlier=failed) == ["fold0/both", "sweep0"]
    (tmp_path / "fold0/wsi/model.safetensors").unlink()
    assert left() == [job.name for job in jobs]
    assert merge_states(jobs, same, failed, tmp_path)[2].attempts == 0  # its restarts begin anew


def test_hashes_follow_what_matters(in_task):
    def hashes(*overrides, **wish):
        config = compose_config(TASK, overrides)
        fan_out = plan_fan_out(
            in_task.paths, in_task.models, config, Wish([0], sweep=True, consolidate=True, **wish)
        )
        return {state.job.name: state.made_from for state in fan_out.states}

    normal = hashes()
    assert hashes("trainer_cfg.save_every=7", "trainer_cfg.num_workers=1") == normal
    rate = hashes("trainer_cfg.learning_rate=0.5")
    assert not set(rate.values()) & set(normal.values())
    criterion = hashes("sweep.criterion=recall")
    assert {name for name in normal if criterion[name] != normal[name]} == {"sweep0", "consolidate"}
    assert len(set(normal.values())) == len(normal)


def test_results_that_count(tmp_path):
    jobs = {job.name: job for job in plan_jobs(PLAN, [0], "T", "M", sweep=True, consolidate=True)}
    files = {
        "fold0/narrow": "fold0/narrow/model.safetensors",
        "sweep0": "fold0/plan_inference.json",
        "consolidate": "consolidated/plan_inference.json",
    }
    for name, file in files.items():
        assert not has_result(jobs[name], tmp_path)
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
        assert has_result(jobs[name], tmp_path)


# ---- one scheduler at a time, and those that are gone


def test_second_scheduler_is_refused(tmp_path):
    class Starts(Pretender):
        def __call__(self, command, folder, environment):
            with pytest.raises(UserError, match=f"another train-all is at work here.*process {os.getpid()}"):
                _run(tmp_path, Pretender(tmp_path))
            return super().__call__(command, folder, environment)

    assert _run(tmp_path, Starts(tmp_path))["fold0/wsi"].state == "done"


def _left_running(model, run):
    """What a scheduler that was killed leaves: a record that says running, and the job's own file."""
    states = _fresh()
    states[0] = replace(states[0], state="running", attempts=1, folder="jobs/fold0-wsi/1")
    TrainAllRecord("local", states).write(model / "train_all.json")
    run.write(model / "jobs/fold0-wsi/1/run.json")


def test_job_of_a_scheduler_that_is_gone(tmp_path):
    """Finished meanwhile: done. Killed: stopped. Still alive: nothing is started beside it."""
    host = os.uname().nodename
    _left_running(tmp_path, JobRun(host, 2**22 + 1, 100.0, 150.0, 0))
    assert (current_states(tmp_path)[0].state, current_states(tmp_path)[0].seconds) == ("done", 50.0)
    _left_running(tmp_path, JobRun(host, 2**22 + 1, 100.0))  # above the largest number of a process
    assert (current_states(tmp_path)[0].state, current_states(tmp_path)[0].why) == ("stopped", "was killed")
    alive = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "submitit"])
    try:
        _left_running(tmp_path, JobRun(host, alive.pid, 100.0))
        assert current_states(tmp_path)[0].state == "running"
        runner = Pretender(tmp_path)
        with pytest.raises(UserError, match=f"still runs; found process {alive.pid}"):
            _run(tmp_path, runner)
        assert runner.order == []
    finally:
        alive.kill()
        alive.wait()
    _left_running(tmp_path, JobRun("node7", 12, 100.0))
    with pytest.raises(UserError, match="runs on another machine; found process 12 on node7"):
        _run(tmp_path, Pretender(tmp_path))
    _left_running(tmp_path, JobRun(host, 2**22 + 1, 100.0, 150.0, 143))
    assert (current_states(tmp_path)[0].state, current_states(tmp_path)[0].why) == ("stopped", "")
    _left_running(tmp_path, JobRun(host, os.getpid(), 100.0))  # its number, but another program's now
    assert current_states(tmp_path)[0].state == "stopped"


# ---- table and job


def test_table(tmp_path):
    states = _fresh(sweep=True)
    for state, changes in enumerate(
        [
            {"state": "done", "attempts": 1, "seconds": 60.4},
            {"state": "running", "attempts": 2, "seconds": 5.0, "folder": "jobs/fold0-narrow/2"},
            {"state": "failed", "attempts": 3, "seconds": 9.0, "why": "was killed"},
        ]
    ):
        states[state] = replace(states[state], **changes)
    JobRun("host", 1, time.time() - 100).write(tmp_path / "jobs/fold0-narrow/2/run.json")
    checkpoint = tmp_path / "fold0/narrow/checkpoint/progress.json"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text(json.dumps({"step": 40}))
    rows = table_rows(states, tmp_path)
    assert rows[0] == ("fold0/wsi", "0", "wsi", "done", "1", "60", "")
    assert rows[1][:5] == ("fold0/narrow", "0", "narrow", "running 40/200", "2")
    assert 105 <= int(rows[1][5]) <= 110  # 5 s of the first attempt, 100 s and a little of this one
    assert rows[2] == ("fold0/both", "0", "both", "failed 0/200", "3", "9", "was killed")
    assert rows[3] == ("sweep0", "0", "sweep", "waiting", "0", "", "fold0/both failed")


def test_steps_of_a_stage(tmp_path):
    assert stage_steps(tmp_path) == 0
    (tmp_path / "metrics.csv").write_text("step,loss\n10,0.5\n20,0.4\n")
    assert stage_steps(tmp_path) == 20
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint/progress.json").write_text('{"step": 25}')
    assert stage_steps(tmp_path) == 25
    (tmp_path / "checkpoint/progress.json").write_text("{")  # cannot be, but must not end a status table
    assert stage_steps(tmp_path) == 20


def test_debug_runner_shows_what_went_wrong(tmp_path):
    """A bug comes through with its traceback, Ctrl-C ends the scheduler, too, and an exit code is the job's own."""
    start = debug_runner(lambda command: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        start(["nndet_train"], tmp_path, {})
    for code in (130, 143):
        with pytest.raises(KeyboardInterrupt):
            debug_runner(lambda command, code=code: code)(["nndet_train"], tmp_path, {})
    run = debug_runner(lambda command: 2)(["nndet_train"], tmp_path, {})
    assert run.done()
    assert read_run(tmp_path).code == 2


@pytest.mark.parametrize(
    ("ending", "code"),
    [(0, 0), (2, 2), (SystemExit(3), 3), (SystemExit("text"), 1), (KeyboardInterrupt(), 130)],
)
def test_a_job_notes_how_it_ended(tmp_path, ending, code):
    def command(arguments):
        assert arguments == ["nndet_train"]
        assert read_run(tmp_path).ended is None
        if isinstance(ending, BaseException):
            raise ending
        return ending

    if code:
        with pytest.raises(SystemExit) as stopped:
            JobWork(command)(["nndet_train"], str(tmp_path))
        assert stopped.value.code == code
    else:
        JobWork(command)(["nndet_train"], str(tmp_path))
    run = read_run(tmp_path)
    assert (run.code, run.pid) == (code, os.getpid())
    assert run.started <= run.ended


def test_a_bug_keeps_its_traceback(tmp_path):
    with pytest.raises(ZeroDivisionError):
        JobWork(lambda command: 1 // 0)(["nndet_train"], str(tmp_path))
    assert read_run(tmp_path).code == 1
