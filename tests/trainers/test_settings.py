"""``trainer_cfg``: what it changes, and what it refuses."""

from __future__ import annotations

import pytest

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.core.errors import UserError
from nndet_psma.trainers.settings import TrainerSettings, adjusted_stage, stages_for

STAGE = Stage("s", "search", [], None, True, 6000, 0.005, [4000, 5000], 600)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"iterationz": 3},
            r"trainer_cfg\.iterationz: unknown key; did you mean iterations\? Known keys are .*iterations",
        ),
        ({"iterations": "many"}, r"trainer_cfg\.iterations: expected int, found 'many'"),
        ({"iterations": -1}, "iterations is too small: -1"),
        ({"batch_size": 0}, "batch_size is too small: 0"),
        ({"num_workers": -1}, "num_workers is too small"),
        ({"save_every": 0}, "save_every and log_every must be at least 1"),
        ({"validate_every": 0}, "validate_every is too small: 0"),
        ({"pictures_every": -1}, "pictures_every is too small: -1"),
        ({"ema_decay": 1.0}, "ema_decay must lie between 0 and 1, found 1.0"),
        ({"select": "first"}, r"trainer_cfg\.select: expected one of \['last', 'best'\], found 'first'"),
        ({"compile": 1}, r"trainer_cfg\.compile: expected bool, found 1"),
        ({"clip_norm": -1.0}, r"clip_norm must not be negative \(0 is off\), found -1"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0"),
        ({"precision": "fp8"}, "precision must be no, fp16 or bf16, found fp8"),
    ],
)
def test_wrong_value_is_named(content, message):
    with pytest.raises(UserError, match=message):
        TrainerSettings.parse(content)


def test_nothing_given_keeps_the_plan():
    assert adjusted_stage(STAGE, TrainerSettings.parse({})) == STAGE


def test_milestones_and_warm_up_shrink_with_the_iterations():
    found = adjusted_stage(STAGE, TrainerSettings(iterations=60, learning_rate=0.1))
    assert (found.iterations, found.milestones, found.warmup, found.learning_rate) == (60, [40, 50], 6, 0.1)
    assert adjusted_stage(STAGE, TrainerSettings(iterations=0)).iterations == 0


def test_validation_happens_only_when_asked_for():
    assert TrainerSettings().validation_steps(200) is None
    assert TrainerSettings(validate_every=7).validation_steps(200) == 7
    assert TrainerSettings(select="best").validation_steps(200) == 20
    assert TrainerSettings(select="best").validation_steps(3) == 1


def test_keys_of_the_result():
    """Defaults and what belongs to the machine are left out; when "best" looks decides what it finds."""
    assert TrainerSettings(num_workers=3, save_every=1, log_every=1, trackers=["wandb"]).result_keys() == {}
    machine = TrainerSettings(channels_last=True, compile=True, pictures_every=0, validate_every=3)
    assert machine.result_keys() == {}
    assert TrainerSettings(seed=3, ema_decay=0.9).result_keys() == {"seed": 3, "ema_decay": 0.9}
    assert TrainerSettings(select="best").result_keys() == {"select": "best"}
    best = TrainerSettings(select="best", validate_every=2)
    assert best.result_keys() == {"select": "best", "validate_every": 2}


def test_one_stage_brings_its_ancestors(tiny_task):
    plan = tiny_task.plan
    assert [s.name for s in stages_for(plan, None)] == ["wsi", *(s.name for s in plan.voters)]
    assert [s.name for s in stages_for(plan, plan.voters[1].name)] == ["wsi", plan.voters[1].name]
    with pytest.raises(UserError, match="no stage 'x'; stages are wsi, "):
        stages_for(plan, "x")
