"""What training will cost: arithmetic by hand on the loads of a plan's stages, and the rows that tell it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from artifact_samples import PLAN

from nndet_psma.artifacts.plan import Target
from nndet_psma.planners.training_memory import Training
from nndet_psma.systems.psma25d.planning.cost import SliceLoad, step_seconds
from nndet_psma.systems.psma25d.planning.memory import Network, estimate_memory
from nndet_psma.systems.system import system_of
from nndet_psma.trainers.cost import cost
from nndet_psma.trainers.cost.cost import hours_text
from nndet_psma.trainers.cost.devices import CPU_CORE, gpu_for


def _plan(device="gpu", memory=48.0, gpus=1, **changes):
    detector = replace(PLAN.detector, backbone="resnet50", norm="frozen", weights="none")
    return replace(PLAN, target=Target(device, memory, gpus), detector=detector, **changes)


def estimate_cost(plan, **options):
    return cost.estimate_cost(plan, system_of(plan).stage_loads(plan), **options)


def cost_rows(plan, **options):
    return cost.cost_rows(plan, system_of(plan).stage_loads(plan), **options)


def test_devices_by_memory_and_precision():
    kinds = [(memory, precision) for memory in (11, 24, 40, 141) for precision in ("no", "bf16")]
    speeds = [gpu_for(Target("gpu", memory), precision).tflops for memory, precision in kinds]
    assert speeds == [9, 29, 9, 29, 23, 61, 23, 61]
    assert SliceLoad.cpu is CPU_CORE


def test_a_whole_task_by_hand():
    """Two folds of three stages of 100, 200 and 200 steps."""
    plan = _plan()
    estimate = estimate_cost(plan)
    detector, device = plan.detector, gpu_for(plan.target)
    for stage in plan.stages:
        height, width = detector.body_input_size if stage.region == "body" else detector.input_size
        network = Network.of(detector, channels=plan.channels(stage), classes=1)
        seconds = step_seconds(network, height * width, 4, detector.proposals_train, device)
        assert estimate.seconds_per_step[stage.name] == pytest.approx(seconds)
        assert estimate.hours_per_stage[stage.name] == pytest.approx(stage.iterations * seconds / 3600)
    assert list(estimate.hours_per_stage) == ["wsi", "narrow", "both"]
    assert estimate.hours_total == pytest.approx(2 * sum(estimate.hours_per_stage.values()))
    assert (estimate.devices, estimate.folds) == (1, 2)
    assert estimate.device_hours == estimate.hours_total


def test_memory_is_that_of_the_most_demanding_stage():
    plan = _plan()
    sizes = {"body": plan.detector.body_input_size, "search": plan.detector.input_size}
    peaks = [
        estimate_memory(
            Network.of(plan.detector, channels=plan.channels(stage), classes=1),
            sizes[stage.region][0] * sizes[stage.region][1], 4, Training(),
        ).total
        for stage in plan.stages
    ]  # fmt: skip
    assert estimate_cost(plan).memory_gb == pytest.approx(max(peaks))


def test_several_gpus_share_a_batch():
    """Two GPUs: half of the images each, at 95 % of the speed of one; GPU hours count both."""
    one, two = estimate_cost(_plan(batch_size=8)), estimate_cost(_plan(gpus=2, batch_size=16))
    assert two.hours_total == pytest.approx(one.hours_total / 0.95)
    assert two.device_hours == pytest.approx(2 * two.hours_total)
    assert estimate_cost(_plan(gpus=2, batch_size=15)).hours_total == two.hours_total  # the slower one counts


def test_cores_of_this_machine_by_default(monkeypatch):
    monkeypatch.setattr(cost.os, "cpu_count", lambda: 3)
    plan = _plan("cpu", 0.0)
    assert estimate_cost(plan) == estimate_cost(plan, cores=3)
    assert "for 3 cores" in estimate_cost(plan).assumption
    assert estimate_cost(plan, cores=4).hours_total < estimate_cost(plan).hours_total


def test_rows_of_plan_show():
    plan = _plan(gpus=2)
    rows = {row.key: row for row in cost_rows(plan)}
    assert list(rows) == ["cost.wsi", "cost.narrow", "cost.both", "cost.total", "cost.memory"]
    assert rows["cost.wsi"].value.endswith("per fold")
    assert rows["cost.wsi"].evidence.startswith("100 steps x 4 slices x ")
    assert "of GPU time" in rows["cost.total"].value
    assert "on 2 GPUs" in rows["cost.total"].value
    assert "2 folds x 3 stages" in rows["cost.total"].evidence
    for words in (
        "estimate for 2 GPUs",
        "each taken for an A100 with TF32: 23 TFLOPS",
        "not measured here",
        "factor 2",
    ):
        assert words in rows["cost.total"].evidence
    assert rows["cost.memory"].value == f"{estimate_cost(plan).memory_gb:.1f} GB"


def test_rows_for_a_cpu():
    rows = {row.key: row for row in cost_rows(_plan("cpu", 0.0), cores=2)}
    assert "GPU" not in rows["cost.total"].value
    assert "a core of a Xeon with AVX-512: 120 GFLOPS" in rows["cost.total"].evidence


def test_a_backbone_without_numbers_is_told_not_refused():
    plan = _plan()
    rows = cost_rows(replace(plan, detector=replace(plan.detector, backbone="wide_resnet50_2")))
    assert [(row.key, row.value) for row in rows] == [("cost", "unknown")]
    assert "memory of this backbone is unknown" in rows[0].evidence


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0, "0.0 min"), (0.01, "0.6 min"), (0.5, "30 min"), (1.04, "1.0 h"), (9.94, "9.9 h"), (24.4, "24 h")],
)
def test_hours_in_words(hours, text):
    assert hours_text(hours) == text
