"""Machine profiles, batch size, schedules, grids and options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nndet_psma.artifacts.fingerprint import Histogram
from nndet_psma.artifacts.plan import Target
from nndet_psma.core.errors import UserError
from nndet_psma.planners.grids import postproc_defaults, postproc_grid
from nndet_psma.planners.machine import choose_batch_size, choose_profile, estimate_memory_gb
from nndet_psma.planners.options import PlannerOptions
from nndet_psma.planners.schedule import schedule_for

BACKBONES = ["resnet18", "resnet50", "resnext50_32x4d", "resnext101_32x8d"]
CPU, GPU = Target("cpu", 0.0), Target("gpu", 80.0)


@given(
    st.sampled_from(BACKBONES),
    st.integers(1_000, 640_000),
    st.floats(1, 200),
    st.floats(0, 100),
)
def test_more_memory_never_lowers_the_batch(backbone: str, pixels: int, memory: float, more: float) -> None:
    small = choose_batch_size(Target("gpu", memory), backbone, pixels)
    large = choose_batch_size(Target("gpu", memory + more), backbone, pixels)
    assert 1 <= small <= large <= 64
    if small > 1:
        assert estimate_memory_gb(backbone, pixels, small) <= 0.8 * memory
    if small < 64:
        assert estimate_memory_gb(backbone, pixels, small + 1) > 0.8 * memory


def test_batch_reaches_but_never_exceeds_the_papers() -> None:
    assert choose_batch_size(Target("gpu", 1000.0), "resnet18", 10_000) == 64
    assert choose_batch_size(Target("gpu", 0.1), "resnext101_32x8d", 640_000) == 1
    assert choose_batch_size(CPU, "resnet18", 28_000) == 4


def test_memory_grows_with_everything() -> None:
    assert estimate_memory_gb("resnet18", 1_000_000, 2) == pytest.approx(0.3 + 2 * (1.8 + 0.35))
    assert estimate_memory_gb("resnet50", 1000, 1) < estimate_memory_gb("resnext101_32x8d", 1000, 1)


def test_profiles() -> None:
    cpu = choose_profile(CPU)
    assert (cpu.backbone, cpu.weights, cpu.norm, cpu.voters) == ("resnet18", "none", "batch", 3)
    assert choose_profile(Target("gpu", 23.0)).backbone == "resnext50_32x4d"
    large = choose_profile(Target("gpu", 24.0))
    assert (large.backbone, large.weights, large.norm) == ("resnext101_32x8d", "imagenet", "frozen")
    assert (large.roi_samples, large.rpn_samples, large.proposals, large.voters) == (512, 256, 1000, None)
    assert cpu.max_pixels < large.max_pixels


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


def test_grid_holds_off_and_the_papers_values() -> None:
    # 100 lesion voxels at each of 80..160 HU in steps of 20: the 75 % quantile is 140, the 99 % quantile 160
    histogram = Histogram.of(np.repeat([80, 100, 120, 140, 160], 100))
    grid = postproc_grid(histogram, 6.48, voters=5)
    assert grid["zone_mm"][0] is None
    # ten pixels of 0.648 mm
    assert grid["zone_mm"][1:] == pytest.approx([0.648 * i for i in range(1, 11)])
    assert grid["hu_threshold"] == [None, 140.0, 145.0, 150.0, 155.0, 160.0]
    assert grid["hu_quantile"] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert grid["min_votes"] == [1, 2, 3, 4, 5]
    assert grid["vote_iou"] == [0.1, 0.2, 0.3]


def test_grid_without_ctv_and_ct_leaves_filters_off() -> None:
    grid = postproc_grid(Histogram(), None, voters=1)
    assert grid["zone_mm"] == [None]
    assert grid["hu_threshold"] == [None]
    assert grid["min_votes"] == [1]


def test_defaults_are_off_and_fit_the_settings() -> None:
    from nndet_psma.core.schema import from_plain
    from nndet_psma.postproc.settings import PostprocSettings

    settings = from_plain(PostprocSettings, postproc_defaults(6.48))
    assert settings.zone_mm == 6.48
    assert settings.hu_threshold is None
    assert settings.min_votes == 1
    assert postproc_defaults(None)["zone_mm"] is None
    assert set(postproc_grid(Histogram(), None, 1)) <= set(postproc_defaults(None))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"num_fold": 3}, "plan_cfg.num_fold: unknown key"),
        ({"num_folds": 1}, "num_folds must be at least 2, found 1"),
        ({"num_folds": "five"}, "plan_cfg.num_folds: expected int"),
        ({"target": "tpu"}, "plan_cfg.target: expected one of"),
        ({"quantiles": [0.5, 60.0]}, "quantiles are tails"),
        ({"max_voters": 0}, "max_voters must be at least 1"),
        ({"margin_coverage": 0.0}, "margin_coverage must lie in"),
        ({"iterations_factor": -1.0}, "iterations_factor must not be negative"),
        ({"soft_tissue": [225.0, -125.0]}, "soft_tissue"),
        ({"soft_tissue": [1.0]}, r"plan_cfg.soft_tissue: expected 2 values"),
        ({"min_margin_mm": -1.0}, "min_margin_mm must not be negative"),
        ({"gpu_memory_gb": 0.0}, "gpu_memory_gb must be positive"),
    ],
)
def test_options_name_the_wrong_key(content: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        PlannerOptions.parse(content)


def test_options_equal_the_configurations_defaults() -> None:
    from nndet_psma.cli.config import compose_config, plain

    assert PlannerOptions.parse(plain(compose_config("Task900_X", []).plan_cfg)) == PlannerOptions()
