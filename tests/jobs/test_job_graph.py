"""The graph of a whole training, and how many of its jobs fit on a machine."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from artifact_samples import PLAN
from plan_jobs import plan_jobs

from nndet_psma.core.errors import UserError
from nndet_psma.jobs import slots as slots_module
from nndet_psma.jobs.graph import blocking_job, last_jobs, ready_jobs
from nndet_psma.jobs.slots import Gpu, job_slots, jobs_per_gpu, visible_gpus
from nndet_psma.planners.training_memory import Training
from nndet_psma.systems.psma25d.planning.memory import Network, estimate_memory
from nndet_psma.systems.system import system_of
from nndet_psma.trainers.settings import TrainerSettings


def _jobs(folds=(0, 1), **options):
    return plan_jobs(PLAN, folds, "Task100_Nodes", "M_P", ["exp.tag=_b"], **options)


def test_order_and_needs():
    """The sample plan has wsi, and narrow and both that start from it."""
    found = [(job.name, job.needs) for job in _jobs(sweep=True, consolidate=True)]
    assert found == [
        ("fold0/wsi", []),
        ("fold0/narrow", ["fold0/wsi"]),
        ("fold0/both", ["fold0/wsi"]),
        ("sweep0", ["fold0/narrow", "fold0/both"]),
        ("fold1/wsi", []),
        ("fold1/narrow", ["fold1/wsi"]),
        ("fold1/both", ["fold1/wsi"]),
        ("sweep1", ["fold1/narrow", "fold1/both"]),
        ("consolidate", ["sweep0", "sweep1"]),
    ]


def test_consolidation_without_sweeps_waits_for_the_stages():
    jobs = _jobs([1], consolidate=True)
    assert jobs[-1].needs == ["fold1/narrow", "fold1/both"]
    assert last_jobs(jobs) == ["consolidate"]


def test_chain_of_stages():
    """A stage that starts from a voter waits for that voter; the fold's end is the last of the chain."""
    wsi, narrow, both = PLAN.stages
    plan = replace(PLAN, stages=[wsi, narrow, replace(both, start_from="narrow")])
    jobs = plan_jobs(plan, [0], "T", "M", sweep=True)
    assert [(job.name, job.needs) for job in jobs[2:]] == [
        ("fold0/both", ["fold0/narrow"]),
        ("sweep0", ["fold0/both"]),
    ]


def test_commands_are_those_a_user_would_type():
    jobs = {job.name: job.command for job in _jobs([1, 0, 1], sweep=True, consolidate=True)}
    assert jobs["fold1/narrow"] == [
        "nndet_train", "Task100_Nodes", "-o", "exp.fold=1", "exp.voter=narrow", "exp.tag=_b",
    ]  # fmt: skip
    assert jobs["sweep0"] == ["nndet_sweep", "Task100_Nodes", "M_P", "0", "-o", "exp.tag=_b"]
    assert jobs["consolidate"] == [
        "nndet_consolidate", "Task100_Nodes", "M_P", "--folds", "0", "1", "--sweep_boxes", "-o", "exp.tag=_b",
    ]  # fmt: skip
    assert "-o" not in plan_jobs(PLAN, [0], "T", "M", sweep=True)[-1].command


@pytest.mark.parametrize("fold", [-1, 2])
def test_a_fold_that_does_not_exist(fold):
    with pytest.raises(UserError, match=rf"expected 0 to 1; found fold {fold}"):
        _jobs([0, fold])


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        ("exp.fold=1", "Choose folds with --folds"),
        ("+exp.voter=wsi", "train one with nndet_train"),
        ("train.mode=overwrite", "Delete the model folder"),
    ],
)
def test_overrides_that_the_jobs_set_themselves(override, remedy):
    with pytest.raises(UserError, match=remedy):
        plan_jobs(PLAN, [0], "T", "M", [override])


def test_what_is_ready():
    jobs = _jobs(sweep=True)
    states = dict.fromkeys((job.name for job in jobs), "waiting")
    assert [job.name for job in ready_jobs(jobs, states)] == ["fold0/wsi", "fold1/wsi"]
    states |= {"fold0/wsi": "done", "fold1/wsi": "running", "fold0/narrow": "done", "fold0/both": "running"}
    assert ready_jobs(jobs, states) == []  # the sweep waits for both voters
    states["fold0/both"] = "done"
    assert [job.name for job in ready_jobs(jobs, states)] == ["sweep0"]


def test_what_a_failure_blocks():
    jobs = _jobs(sweep=True, consolidate=True)
    by_name = {job.name: job for job in jobs}
    states = dict.fromkeys(by_name, "waiting") | {"fold0/wsi": "done", "fold0/both": "failed"}
    blocked = {job.name: blocking_job(job, by_name, states) for job in jobs}
    assert {name: by for name, by in blocked.items() if by} == {
        "sweep0": "fold0/both",
        "consolidate": "fold0/both",
    }


def test_slots():
    two = [Gpu("0", 24.0), Gpu("GPU-ab", 12.0)]
    assert job_slots([], None, []) == [None]
    assert job_slots([], 3, []) == [None, None, None]
    # GPUs in turn: the larger one holds three, the smaller one
    assert job_slots(two, None, [3, 1]) == ["0", "GPU-ab", "0", "0"]
    assert job_slots(two, 2, [3, 1]) == ["0", "GPU-ab"]
    assert job_slots(two, 9, [1, 1]) == ["0", "GPU-ab"]


def _per_gpu(plan, settings, memory_gb):
    return jobs_per_gpu(plan, system_of(plan).stage_loads(plan), settings, memory_gb)


def test_jobs_per_gpu_follow_the_largest_stage():
    """``both`` has two windows, so twice the channels of the others; whole slices may still be larger."""
    detector = PLAN.detector
    totals = []
    for stage in PLAN.stages:
        size = detector.input_size if stage.region == "search" else detector.body_input_size
        network = Network.of(detector, channels=PLAN.channels(stage), classes=len(PLAN.classes))
        estimate = estimate_memory(network, size[0] * size[1], PLAN.batch_size, Training(PLAN.optimizer))
        totals.append(estimate.total)
    memory = max(totals) / 0.92
    settings = TrainerSettings()
    assert _per_gpu(PLAN, settings, 3.01 * memory) == 3
    assert _per_gpu(PLAN, settings, 2.99 * memory) == 2
    assert _per_gpu(PLAN, settings, 0.5 * memory) == 1  # the trainer tells that it does not fit
    assert _per_gpu(PLAN, replace(settings, batch_size=64), 3.01 * memory) < 3


def test_unknown_network_gets_a_gpu_of_its_own(caplog):
    plan = replace(PLAN, detector=replace(PLAN.detector, backbone="resnet1001"))
    with caplog.at_level(logging.WARNING, logger="nndet_psma"):
        assert _per_gpu(plan, TrainerSettings(), 1000.0) == 1
    assert "one job per GPU: memory of this backbone is unknown" in caplog.text


@pytest.mark.parametrize(
    ("variable", "names"), [("", ["0", "1"]), ("5,3", ["5", "3"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"])]
)
def test_gpus_keep_the_names_the_user_gave_them(monkeypatch, tmp_path, variable, names):
    """A stand-in for the process that asks PyTorch: two GPUs of 24 and 12 GB."""
    monkeypatch.setattr(slots_module, "_MEMORY_OF_GPUS", "print('[24.0, 12.0]')")
    monkeypatch.setattr(slots_module, "_GPU_DEVICES", ("null",))  # as if the driver were there
    found = visible_gpus({"CUDA_VISIBLE_DEVICES": variable} if variable else {})
    assert found == [Gpu(names[0], 24.0), Gpu(names[1], 12.0)]
    monkeypatch.setattr(slots_module, "_GPU_DEVICES", ("no_such_device",))
    assert visible_gpus({}) == []
