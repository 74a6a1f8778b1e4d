"""What to lower when slices do not fit the GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
from artifact_samples import PLAN

from nndet_psma.planners.training_memory import Training
from nndet_psma.systems.psma25d.planning.cost import what_to_lower
from nndet_psma.systems.psma25d.planning.memory import Network, estimate_memory


@pytest.fixture
def plan():
    return PLAN


def test_full_gpu_names_the_batch_that_fits(plan):
    """Memory for three slices and a bit (the planner uses 92 %), two GPUs with eight slices each."""
    training = Training(plan.optimizer, gpus=2)
    stage = plan.stages[0]
    size = plan.detector.body_input_size if stage.region == "body" else plan.detector.input_size
    network = Network.of(plan.detector, channels=plan.channels(stage), classes=len(plan.classes))
    three, four = (estimate_memory(network, size[0] * size[1], n, training).total for n in (3, 4))
    memory = (three + four) / 2 / 0.92
    told = what_to_lower(plan, stage, 8, training, memory)
    assert f"Lower trainer_cfg.batch_size from 16 to 6 (about {three:.1f} of {memory:.1f} GB per GPU" in told
    assert "from 16 to 6" in what_to_lower(plan, stage, 8, training, memory + 5, held_gb=5)


def test_full_gpu_against_the_estimate_halves_the_batch(plan):
    told = what_to_lower(plan, plan.stages[0], 8, Training(plan.optimizer), 1000.0)
    assert told.startswith("Lower trainer_cfg.batch_size from 8 to 4; by the estimate 64 would fit")


def test_full_gpu_that_holds_nothing_needs_another_plan(plan):
    told = what_to_lower(plan, plan.stages[0], 8, Training(plan.optimizer), 0.5)
    assert "Not even one slice" in told
    assert "plan_cfg.gpu_memory_gb=0" in told
    wide = replace(plan, detector=replace(plan.detector, backbone="wide_resnet50_2"))
    assert what_to_lower(wide, plan.stages[0], 8, Training(), 8.0) == "Lower trainer_cfg.batch_size"
