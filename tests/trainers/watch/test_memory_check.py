"""The recorded GPU peak: arithmetic, when it is written, and that nothing happens without a GPU."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from artifact_samples import PLAN

from nndet_psma.planners.training_memory import Training
from nndet_psma.systems.psma25d.planning.cost import stage_load
from nndet_psma.systems.psma25d.planning.memory import Network, estimate_memory
from nndet_psma.trainers.observer import StepReport
from nndet_psma.trainers.watch.memory_check import (
    MEMORY_FILE,
    MemoryCheck,
    MemoryWatch,
    Peak,
    compare_memory,
    gpu_room,
)


@pytest.fixture
def plan():
    return PLAN


@pytest.fixture
def gpu(monkeypatch):
    """A CUDA that has 3 GB reserved and 2 GB in use; returns what was called."""
    calls = []
    answers = {
        "max_memory_allocated": 2 * 10**9,
        "max_memory_reserved": 3 * 10**9,
        "get_device_name": "Test GPU",
    }
    for name in ("empty_cache", "reset_peak_memory_stats", *answers):
        monkeypatch.setattr(torch.cuda, name, lambda *_, n=name: calls.append(n) or answers.get(n))
    return calls


def _watch(plan, folder, device="cuda", **changes):
    stage = replace(plan.stages[0], milestones=[], warmup=0, **changes)
    return MemoryWatch(
        stage_load(plan, stage), stage, folder, 2, Training(plan.optimizer), torch.device(device)
    )


def _tell(watch, step):
    watch.on_step(
        StepReport(step, watch.stage.iterations, {"loss": 1.0}, 0.1, 2, 1.0, {}), torch.nn.Identity()
    )


def test_comparison_leaves_the_context_out(plan):
    stage = plan.stages[0]
    check = compare_memory(
        stage_load(plan, stage), stage, 2, Training(plan.optimizer), Peak(2 * 10**9, 3 * 10**9), "Test GPU"
    )
    size = plan.detector.body_input_size if stage.region == "body" else plan.detector.input_size
    network = Network.of(plan.detector, channels=plan.channels(stage), classes=len(plan.classes))
    estimate = estimate_memory(network, size[0] * size[1], 2, Training(plan.optimizer))
    assert check.estimated_gb == pytest.approx(estimate.total - 0.6, abs=0.001)
    assert (check.measured_gb, check.allocated_gb) == (3.0, 2.0)
    assert check.ratio == pytest.approx(3 / (estimate.total - 0.6), abs=0.001)
    assert (check.stage, check.device, check.batch_size, check.input_size) == (
        stage.name,
        "Test GPU",
        2,
        size,
    )


def test_written_once_after_the_third_step(plan, tmp_path, gpu, caplog):
    watch = _watch(plan, tmp_path, iterations=10)
    assert gpu == ["empty_cache", "reset_peak_memory_stats"]
    with caplog.at_level(logging.INFO, logger="nndet_psma"):
        for step in range(5, 9):  # a resumed stage begins in the middle
            _tell(watch, step)
            assert (tmp_path / MEMORY_FILE).exists() == (step >= 7)
    assert gpu.count("max_memory_reserved") == 1
    check = MemoryCheck.read(tmp_path / MEMORY_FILE)
    peak = Peak(2 * 10**9, 3 * 10**9)
    assert check == compare_memory(
        stage_load(plan, watch.stage), watch.stage, 2, Training(plan.optimizer), peak, "Test GPU"
    )
    error = f"({100 * (check.ratio - 1):+.0f} %)"
    assert [
        r.getMessage()
        for r in caplog.records
        if "GPU memory 3.00 GB" in r.getMessage() and error in r.getMessage()
    ]


def test_short_stage_is_recorded_at_its_end(plan, tmp_path, gpu):
    watch = _watch(plan, tmp_path, iterations=2)
    _tell(watch, 1)
    assert not (tmp_path / MEMORY_FILE).exists()
    _tell(watch, 2)
    assert (tmp_path / MEMORY_FILE).exists()


def test_without_gpu_nothing_is_touched(plan, tmp_path, gpu):
    watch = _watch(plan, tmp_path, device="cpu", iterations=2)
    _tell(watch, 1)
    _tell(watch, 2)
    assert gpu == []
    assert list(tmp_path.iterdir()) == []


def test_backbone_without_numbers_is_no_error(plan, tmp_path, gpu, caplog):
    wide = replace(plan, detector=replace(plan.detector, backbone="wide_resnet50_2"))
    with caplog.at_level(logging.INFO, logger="nndet_psma"):
        _tell(_watch(wide, tmp_path, iterations=1), 1)
    assert not (tmp_path / MEMORY_FILE).exists()
    assert "memory of this backbone is unknown" in caplog.text


def test_room_of_a_gpu(monkeypatch):
    """24 GB, 6 of them free; 10 of the others are ours."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (6 * 10**9, 24 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 10 * 10**9)
    assert gpu_room(torch.device("cuda")) == (24.0, 8.0)
