"""Schedules: the paper's, scaled."""

from __future__ import annotations

import pytest

from nndet_psma.artifacts.plan import Target
from nndet_psma.systems.psma25d.planning.schedule import schedule_for

CPU, GPU = Target("cpu", 0.0), Target("gpu", 80.0)


def test_schedule_of_the_paper() -> None:
    schedule = schedule_for(GPU, positive_slices=1200, batch=64, positive_fraction=0.5, factor=1.0)
    assert schedule.optimizer == "sgd"
    assert schedule.wsi[:3] == (3000, 0.01, [2000])
    assert schedule.search[:3] == (6000, 0.005, [4000, 5000])
    assert schedule_for(GPU, 99_999, 64, 0.5, 1.0).wsi == schedule.wsi  # never more than the paper's


def test_schedule_follows_batch_and_data() -> None:
    small_batch = schedule_for(GPU, 1200, 16, 0.5, 1.0)
    assert small_batch.wsi[:3] == (12000, 0.0025, [8000])
    assert small_batch.search[:3] == (24000, 0.00125, [16000, 20000])
    half_data = schedule_for(GPU, 600, 64, 0.5, 1.0)
    assert half_data.wsi[:3] == (1500, 0.01, [1000])
    # with 3 of 4 slices positive instead of 1 of 2, each is seen as often in two thirds of the steps
    assert schedule_for(GPU, 1200, 64, 0.75, 1.0).search.iterations == 4000


def test_schedule_factor_and_cpu() -> None:
    assert schedule_for(GPU, 1200, 64, 0.5, 0.1).search[:3] == (600, 0.005, [400, 500])
    cpu = schedule_for(CPU, 1200, 4, 0.5, 1.0)
    assert cpu.optimizer == "adamw"
    assert cpu.wsi.milestones == [round(cpu.wsi.iterations * 2 / 3)]
    assert schedule_for(CPU, 5, 4, 0.5, 0.0).search.iterations == 0
    for stage in (cpu.wsi, cpu.search):
        assert 0 < stage.warmup < stage.milestones[0] < stage.iterations


@pytest.mark.parametrize("target", [CPU, GPU], ids=["cpu", "gpu"])
def test_the_papers_schedule_does_not_follow_data_or_machine(target: Target) -> None:
    few = schedule_for(target, 10, 16, 0.75, 1.0, paper=True)
    assert few.optimizer == "sgd"
    assert few.wsi[:3] == (12000, 0.0025, [8000])
    assert few.search[:3] == (24000, 0.00125, [16000, 20000])


@pytest.mark.parametrize("target", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("factor", [0.0, 0.01, 0.5, 3.0])
def test_milestones_and_warm_up_lie_inside_the_run(target: Target, factor: float) -> None:
    schedule = schedule_for(target, 50, 8, 0.5, factor)
    for stage in (schedule.wsi, schedule.search):
        assert stage.milestones == sorted(stage.milestones)
        assert all(0 <= m <= stage.iterations for m in stage.milestones)
        assert 0 <= stage.warmup <= stage.iterations
