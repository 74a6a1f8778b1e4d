"""``nndet_psma train-all``: arguments, what it prints, the debug executor, and submission to a stand-in for SLURM."""

from __future__ import annotations

import builtins
import os

import pytest
from artifact_samples import PLAN
from plan_jobs import plan_jobs
from tiny_place import MODEL, TASK, TRAIN_OPTIONS

from nndet_psma.cli import umbrella
from nndet_psma.cli.train_all import build_parser, main, run_command_line
from nndet_psma.core.errors import UserError
from nndet_psma.jobs import status as job_status
from nndet_psma.jobs.record import JobRun, JobState, TrainAllRecord, read_run
from nndet_psma.jobs.slurm import SlurmOptions, parse_extra, sbatch_parameters, submit_jobs
from nndet_psma.jobs.status import current_states
from nndet_psma.jobs.work import REQUEUED, JobWork

pytest.importorskip("submitit")


def _names(place):
    return [stage.name for stage in place.plan.stages]


def test_every_argument_is_explained():
    for action in build_parser()._actions:
        assert action.help, action.dest


def test_the_umbrella_takes_it_as_typed(in_task, capsys):
    assert "  train-all " in _help(capsys)
    assert umbrella.main(["train-all", "900", "--dry-run", "--folds", "0"]) == 0
    assert "fold0/wsi" in capsys.readouterr().out


def _help(capsys):
    umbrella.main(["--help"])
    return capsys.readouterr().out


def test_dry_run_prints_the_graph_and_writes_nothing(in_task, capsys):
    assert main(["900", "--dry-run", "--folds", "1", "--sweep", "--consolidate", "-o", "exp.tag=_b"]) == 0
    _, first, second = _names(in_task)
    assert capsys.readouterr().out.splitlines() == [
        "fold1/wsi",
        f"    nndet_train {TASK} -o exp.fold=1 exp.voter=wsi exp.tag=_b",
        f"fold1/{first} after fold1/wsi",
        f"    nndet_train {TASK} -o exp.fold=1 exp.voter={first} exp.tag=_b",
        f"fold1/{second} after fold1/wsi",
        f"    nndet_train {TASK} -o exp.fold=1 exp.voter={second} exp.tag=_b",
        f"sweep1 after fold1/{first}, fold1/{second}",
        f"    nndet_sweep {TASK} {MODEL}_b 1 -o exp.tag=_b",
        "consolidate after sweep1",
        f"    nndet_consolidate {TASK} {MODEL}_b --folds 1 --sweep_boxes -o exp.tag=_b",
        "5 of 5 jobs to run, at most 1 at once",
    ]
    assert not any(in_task.models.iterdir())


def test_several_jobs_share_the_cores(in_task, capsys, monkeypatch):
    monkeypatch.setattr("nndet_psma.core.workers.usable_cores", lambda: 16)
    assert main(["900", "--dry-run", "--jobs", "4"]) == 0
    out = capsys.readouterr().out
    assert "exp.voter=wsi trainer_cfg.num_workers=3" in out  # four cores each, one of them trains
    assert out.endswith("at most 4 at once\n")
    assert main(["900", "--dry-run", "--jobs", "4", "-o", "trainer_cfg.num_workers=2"]) == 0
    assert "num_workers=3" not in capsys.readouterr().out


def test_gpus_decide_how_many(in_task, capsys, monkeypatch):
    from nndet_psma.jobs.slots import Gpu

    monkeypatch.setattr("nndet_psma.jobs.slots.visible_gpus", lambda: [Gpu("0", 24.0), Gpu("1", 24.0)])
    monkeypatch.setattr("nndet_psma.jobs.slots.jobs_per_gpu", lambda plan, loads, settings, memory: 3)
    for arguments, most in (([], 6), (["--per-gpu", "2"], 4), (["--per-gpu", "auto", "--jobs", "5"], 5)):
        assert main(["900", "--dry-run", *arguments]) == 0
        assert f"at most {most} at once" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folds", "2"], "expected 0 to 1; found fold 2"),
        (["-o", "exp.fold=1"], "exp.fold is set by the jobs"),
        (["-o", "train.mode=overwrite"], "Delete the model folder"),
        (["-o", "exp.vote=1"], "configuration override is wrong"),
        (["-o", "trainer_cfg.precision=fp8"], "precision must be"),
        (["--partition", "gpu"], "--partition belongs to --executor slurm"),
        (["--slurm", "account=lab"], "--slurm belongs to --executor slurm"),
        (["--executor", "slurm", "--per-gpu", "2"], "--per-gpu belongs to --executor local"),
        (["--executor", "slurm", "--slurm", "account"], "--slurm takes KEY=VALUE; found account"),
        (["--executor", "slurm", "--slurm", "dependency=1"], "dependency is set by train-all"),
        (["--status", "--dry-run"], "cannot be combined"),
        (["--status"], "train-all never ran here"),
    ],
)
def test_user_errors(in_task, capsys, arguments, message):
    assert main(["900", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not any(in_task.models.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--jobs", "0"],
        ["--per-gpu", "some"],
        ["--poll", "0"],
        ["--poll", "inf"],
        ["--retries", "-1"],
        ["--executor", "pbs"],
    ],
)
def test_arguments_that_do_not_parse(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["900", *arguments])
    assert stopped.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_without_submitit(in_task, monkeypatch, capsys):
    real = builtins.__import__

    def missing(name, *rest):
        if name == "submitit":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert main(["900"]) == 2
    assert "pip install 'nndet_psma[cluster]'" in capsys.readouterr().err
    assert main(["900", "--dry-run"]) == 0  # looking needs nothing


def test_preprocessing_is_missed_before_anything_starts(in_task, tmp_path, monkeypatch, capsys):
    place = in_task.copy(tmp_path / "copy")
    place.enter(monkeypatch)
    for case in place.store.iterdir():
        case.rename(place.data / f"moved_{case.name}")
    assert main(["900"]) == 2
    assert "is not preprocessed. Run nndet_prep" in capsys.readouterr().err


def test_debug_executor_runs_the_real_trainer_here(in_task, capsys):
    """Both voters start from the one whole-slice stage; a second start does nothing."""
    arguments = [
        "900",
        "--executor",
        "debug",
        "--folds",
        "0",
        "-o",
        *TRAIN_OPTIONS,
        "trainer_cfg.iterations=1",
    ]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "3 done" in out
    assert all((in_task.model / f"fold0/{name}/model.safetensors").is_file() for name in _names(in_task))
    log = (in_task.model / "fold0/train.log").read_text()
    assert log.count("stage wsi: finished before") == 2
    assert main(arguments) == 0
    assert "running" not in capsys.readouterr().out
    assert main([*arguments[:1], "--status", *arguments[5:]]) == 0
    assert "3 done" in capsys.readouterr().out


def test_plain_table_off_a_terminal(in_task, capsys):
    job = plan_jobs(PLAN, [0], TASK, MODEL)[0]
    TrainAllRecord("local", [JobState(job, "hash", "failed", 3, 12.0, why="was killed")]).write(
        in_task.model / "train_all.json"
    )
    assert main(["900", "--status"]) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["job", "fold", "stage", "state", "attempts", "seconds", "note"]
    steps = f"0/{job.iterations}"
    assert lines[2] == ["fold0/wsi", "0", "wsi", "failed", steps, "3", "12", "was", "killed"]


# ---- SLURM, by stand-ins: no cluster was at hand


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """``sbatch`` that keeps scripts and counts from 100, ``sacct`` that prints sacct.txt, ``scontrol`` that notes."""
    folder = tmp_path / "bin"
    folder.mkdir()
    _script(folder / "srun", "exit 0")
    _script(
        folder / "sbatch",
        f'if [ -f {folder}/full ]; then echo "sbatch: error: Invalid account" >&2; exit 1; fi\n'
        f"n=$((100 + $(ls {folder} | grep -c '^script'))); cp $1 {folder}/script$n; echo Submitted batch job $n",
    )
    _script(folder / "sacct", f'echo "$@" > {folder}/asked; cat {folder}/sacct.txt 2>/dev/null')
    _script(folder / "scontrol", f'echo "$@" >> {folder}/requeued')
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def _script(file, text):
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def _options(script):
    """``#SBATCH --key=value`` lines as a dictionary, quotes off."""
    pairs = [line.removeprefix("#SBATCH --").partition("=") for line in script.read_text().splitlines()]
    return {
        key: value.strip("'") for key, equals, value in pairs if equals and not key.startswith(("srun", "/"))
    }


def _states(**options):
    return [JobState(job, "hash") for job in plan_jobs(PLAN, [0], TASK, MODEL, **options)]


def test_parameters_of_a_job():
    options = SlurmOptions(
        "gpu", 600, 32.0, 1, 2, parse_extra(["account=lab", "cpus-per-task=8", "reservation=x"])
    )
    assert sbatch_parameters("fold0/narrow", options, ["17", "18"]) == {
        "name": "fold0/narrow",
        "timeout_min": 600,
        "slurm_partition": "gpu",
        "mem_gb": 32.0,
        "gpus_per_node": 1,
        "nodes": 1,
        "tasks_per_node": 1,
        "stderr_to_stdout": True,
        "cpus_per_task": 8,
        "slurm_account": "lab",
        "slurm_additional_parameters": {
            "dependency": "afterok:17:18",
            "kill-on-invalid-dep": "yes",
            "reservation": "x",
        },
    }
    small = sbatch_parameters("fold0/wsi", SlurmOptions(gpus=0), [])
    assert set(small) == {"name", "timeout_min", "nodes", "tasks_per_node", "stderr_to_stdout"}


def test_submission_scripts(slurm, tmp_path):
    model = tmp_path / "model"
    states = submit_jobs(model, _states(sweep=True), SlurmOptions("gpu", 600), run_command_line)
    assert [(s.job.name, s.state, s.job_id) for s in states] == [
        ("fold0/wsi", "submitted", "100"),
        ("fold0/narrow", "submitted", "101"),
        ("fold0/both", "submitted", "102"),
        ("sweep0", "submitted", "103"),
    ]
    assert TrainAllRecord.read(model / "train_all.json").jobs == states
    first, last = _options(slurm / "script100"), _options(slurm / "script103")
    assert "dependency" not in first
    assert (first["partition"], first["time"], first["gpus-per-node"]) == ("gpu", "600", "1")
    assert first["job-name"] == "psma-fold0/wsi"
    assert _options(slurm / "script102")["dependency"] == "afterok:100"
    assert (last["dependency"], last["kill-on-invalid-dep"]) == ("afterok:101:102", "yes")
    assert first["output"].startswith(str(model / "jobs/fold0-wsi/1"))


def test_submitted_again_only_what_failed(slurm, tmp_path):
    """wsi done, narrow failed, both in the queue: narrow alone is submitted, and depends on nothing."""
    model = tmp_path / "model"
    states = submit_jobs(model, _states(sweep=True), SlurmOptions(), run_command_line)
    JobRun("node7", 5, 100.0, 160.0, 0).write(model / states[0].folder / "run.json")
    (slurm / "sacct.txt").write_text("100|COMPLETED\n101|OUT_OF_MEMORY\n102|PENDING\n103|CANCELLED by 7\n")
    now = current_states(model)
    assert [(s.state, s.why) for s in now] == [
        ("done", ""),
        ("failed", "SLURM: OUT_OF_MEMORY"),
        ("submitted", "in the queue"),
        ("failed", "SLURM: CANCELLED"),
    ]
    assert "-j 100,101,102,103" in (slurm / "asked").read_text()
    wanted = [now[0], *_states(sweep=True)[1:]]
    again = submit_jobs(model, wanted, SlurmOptions(), run_command_line)
    assert [s.job_id for s in again] == ["100", "104", "102", "105"]
    assert "dependency" not in _options(slurm / "script104")
    assert _options(slurm / "script105")["dependency"] == "afterok:104:102"


def test_queue_is_believed_without_sacct(slurm, tmp_path, monkeypatch):
    """A job of which nothing is known may still start: it is never submitted twice."""
    model = tmp_path / "model"
    submit_jobs(model, _states(), SlurmOptions(), run_command_line)
    monkeypatch.setattr(job_status.shutil, "which", lambda name: None)
    again = submit_jobs(model, _states(), SlurmOptions(), run_command_line)
    assert [s.job_id for s in again] == ["100", "101", "102"]


def test_local_jobs_beside_those_of_slurm_are_refused(slurm, in_task, capsys):
    options = ["-o", *TRAIN_OPTIONS]
    assert main(["900", "--executor", "slurm", "--folds", "0", *options]) == 0
    out = capsys.readouterr().out
    assert "3 submitted" in out
    assert "after 100" in out
    assert "gpus-per-node" not in _options(slurm / "script100")  # the plan is for the CPU
    assert main(["900", "--folds", "0", *options]) == 2
    assert "is in SLURM's queue; found SLURM job 100" in capsys.readouterr().err


def test_sbatch_refuses(slurm, tmp_path):
    (slurm / "full").touch()
    with pytest.raises(UserError, match=r"fold0/wsi cannot be submitted to SLURM; found .*Invalid account"):
        submit_jobs(tmp_path / "model", _states(), SlurmOptions(), run_command_line)


def test_no_slurm_here(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r'Could not detect "srun".*take --executor local'):
        submit_jobs(tmp_path / "model", _states(), SlurmOptions(), run_command_line)


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [(1, "0", True), (1, "1", True), (1, "2", False), (2, "0", False), (130, "0", False), (0, "0", False)],
)
def test_failed_job_goes_back_into_the_queue(slurm, tmp_path, monkeypatch, code, restarts, requeued):
    """Two restarts; neither the user's mistakes (2) nor what was ended on purpose (130) are tried again."""
    monkeypatch.setenv("SLURM_JOB_ID", "100")
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    work = JobWork(lambda command: code, slurm_retries=2)
    if code:
        with pytest.raises(SystemExit):
            work(["nndet_train"], str(tmp_path))
    else:
        work(["nndet_train"], str(tmp_path))
    assert (slurm / "requeued").is_file() is requeued
    assert read_run(tmp_path).code == (REQUEUED if requeued else code)
    if requeued:
        assert (slurm / "requeued").read_text() == "requeue 100\n"


def test_requeue_that_slurm_refuses_is_a_failure(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "100")
    _script(slurm / "scontrol", "exit 1")
    with pytest.raises(SystemExit):
        JobWork(lambda command: 1, slurm_retries=2)(["nndet_train"], str(tmp_path))
    assert read_run(tmp_path).code == 1


def test_submitit_ends_a_job_that_it_has_queued_again(slurm, tmp_path, monkeypatch):
    """After a time limit submitit requeues and exits with -1 in the middle of training: no second request."""
    monkeypatch.setenv("SLURM_JOB_ID", "100")
    model = tmp_path / "model"
    (state, *_) = submit_jobs(model, _states(), SlurmOptions(), run_command_line)

    def time_limit(command):
        raise SystemExit(-1)

    with pytest.raises(SystemExit):
        JobWork(time_limit, slurm_retries=2)(["nndet_train"], str(model / state.folder))
    assert not (slurm / "requeued").exists()
    assert (current_states(model)[0].state, current_states(model)[0].why) == (
        "submitted",
        "in the queue again",
    )


def test_time_limit_queues_the_same_job_again():
    work = JobWork(run_command_line, slurm_retries=2)
    delayed = work.checkpoint(["nndet_train"], "folder")
    assert (delayed.function, delayed.args) == (work, (["nndet_train"], "folder"))


def test_commands_are_found():
    for name in ("nndet_train", "nndet_sweep", "nndet_consolidate"):
        with pytest.raises(SystemExit) as stopped:
            run_command_line([name, "--no-such-flag"])
        assert stopped.value.code == 2
