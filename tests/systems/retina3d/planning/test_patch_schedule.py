"""Schedules, augmentation and grids of 3D patches, by hand."""

from __future__ import annotations

import pytest
from planner_samples import table_2_histogram

from nndet_psma.artifacts.fingerprint import Histogram
from nndet_psma.artifacts.plan import Target
from nndet_psma.postproc.steps.order import step_order
from nndet_psma.postproc.steps.settings import VOLUME_STEPS, PostprocSettings
from nndet_psma.systems.retina3d.planning.schedule import (
    LIGHT_PATCHES,
    PATCHES,
    patch_augmentation,
    patch_schedule,
)
from nndet_psma.systems.retina3d.planning.sweep_values import STEPS, patch_defaults, patch_grid

CPU, GPU = Target("cpu", 0.0), Target("gpu", 24.0)


def test_nndetections_schedule_at_its_own_numbers() -> None:
    found = patch_schedule(GPU, 1186, 4, 1.0)
    assert found.stage == (125_000, 0.01, [87_500, 112_500], 4000)
    assert found.optimizer == "sgd"


@pytest.mark.parametrize(
    ("lesions", "batch", "steps", "rate"),
    [
        (1000, 8, 62_500, 0.02),  # twice the batch: half the steps, twice the rate
        (500, 4, 62_500, 0.01),  # half the lesions: half the patches
        (20, 2, 25_000, 0.005),  # a tenth at least: 12500 steps of 4
    ],
)
def test_scaled_to_batch_and_lesions(lesions: int, batch: int, steps: int, rate: float) -> None:
    found = patch_schedule(GPU, lesions, batch, 1.0)
    assert found.stage.iterations == steps
    assert found.stage.learning_rate == pytest.approx(rate)


def test_full_schedule_whatever_the_machine() -> None:
    found = patch_schedule(CPU, 20, 2, 0.5, full=True)
    assert (found.stage.iterations, found.optimizer) == (125_000, "sgd")
    assert "of its patches" not in found.reason


def test_cpu_is_short() -> None:
    assert patch_schedule(CPU, 500, 2, 1.0).stage == (400, 0.001, [280, 360], 40)
    assert patch_schedule(CPU, 500, 2, 0.0).stage == (0, 0.001, [0, 0], 0)
    assert patch_schedule(CPU, 500, 2, 1.0).optimizer == "adamw"


def test_augmentation_by_machine_and_wish() -> None:
    assert patch_augmentation("auto", GPU)[0] == PATCHES
    assert patch_augmentation("auto", CPU)[0] == LIGHT_PATCHES
    assert patch_augmentation("paper", CPU)[0] == PATCHES
    assert patch_augmentation("light", GPU)[0] == LIGHT_PATCHES
    assert LIGHT_PATCHES.shift_pixels == PATCHES.shift_pixels == 0


def test_steps_are_those_of_the_post_processing() -> None:
    assert STEPS == VOLUME_STEPS
    settings = PostprocSettings(**patch_defaults(6.48))
    assert settings.zone_mm == 6.48
    assert step_order(settings.steps, 3).dim == 3


def test_candidates_of_the_data() -> None:
    # voxels of 2 mm: 4, 6, 8, 10, 12, 14 mm; 5 % of the shortest sides 8, 9, ..., 28 mm is 9 mm
    grid = patch_grid(table_2_histogram(), 10.0, 2.0, [float(s) for s in range(8, 29)], "data")
    assert grid["min_extent_mm"] == [None, 4.0, 6.0, 8.0]
    assert grid["nms_iou"] == grid["fold_iou"] == [0.01, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert "score_threshold" not in grid  # every score that occurs
    assert grid["zone_mm"][-1] == 10.0
    assert len(grid["hu_threshold"]) > 1
    assert (grid["min_votes"], len(grid["vote_iou"])) == ([1], 1)


def test_candidates_of_nndetection() -> None:
    grid = patch_grid(Histogram(), None, 0.5, [2.0], "paper")
    assert grid["min_extent_mm"] == [None, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
    assert grid["score_threshold"] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert grid["zone_mm"] == grid["hu_threshold"] == [None]
