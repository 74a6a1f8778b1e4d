"""What a training that goes on may not change unnoticed: every field of plan and settings, but for the named ones."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
from artifact_samples import PLAN
from patch_plan import on_patches
from small_detector3d import SMALL
from stage_hashes import stage_hash

from nndet_psma.artifacts.detector_plan import DetectorPlan
from nndet_psma.trainers.identity import FREE_KEYS, told_changes
from nndet_psma.trainers.settings import MACHINE_KEYS, TrainerSettings, adjusted_stage

PLANS = {"slices": PLAN, "patches": on_patches(PLAN, SMALL)}
ANCESTOR, OWN, OTHER = range(3)  # of the sample's stages: the second and the third start from the first
PLAN_KEYS = {
    "task", "modalities", "classes", "ct_modality", "ctv_modality", "spacing", "batch_size", "seed", "margin_mm",
    "body_margin_mm", "windows", "scalings", "neighbours", "positive_fraction", "hard_negative_fraction",
    "augmentation", "optimizer", "clip_norm", "norm_decay", "detector", "detector3d",
}  # fmt: skip
SETTINGS_KEYS = {
    "iterations", "learning_rate", "batch_size", "precision", "clip_norm", "sgd_momentum", "weight_decay",
    "ema_decay", "select", "start_weights", "seed",
}  # fmt: skip


def _other(value: Any) -> Any:
    """Any other value of the same type; plans are not checked here, so it need not make sense."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, list | tuple):
        return type(value)([*map(_other, value[:1]), *value[1:]]) if value else [1]
    if isinstance(value, dict):
        return {**value, "x": 1}
    if value is None:
        return "x"
    raise TypeError(f"no other value of {value!r} is known")


def _changed(whole: Any, name: str, value: Any) -> Any:
    """A copy with one field changed, past all checks."""
    changed = copy.copy(whole)
    object.__setattr__(changed, name, value)
    return changed


def _changes(whole: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted place of every value in a dataclass, and a copy of the whole that differs there alone.

    Where a stage starts from is left out: another value must name a stage.
    """
    for field in [field for field in fields(whole) if field.name != "start_from"]:
        value, here = getattr(whole, field.name), f"{place}{field.name}"
        if is_dataclass(value):
            for name, inner in _changes(value, f"{here}."):
                yield name, _changed(whole, field.name, inner)
        elif isinstance(value, list) and value and is_dataclass(value[0]):
            for number, item in enumerate(value):
                for name, inner in _changes(item, f"{here}.{number}."):
                    yield name, _changed(whole, field.name, [*value[:number], inner, *value[number + 1 :]])
        else:
            yield here, _changed(whole, field.name, _other(value))


def _hash(plan: DetectorPlan, settings: TrainerSettings | None = None) -> str:
    """Of the stage ``OWN`` in fold 0."""
    settings = settings or TrainerSettings()
    stage = plan.stages[OWN]
    if stage.start_from is not None:  # whatever its ancestor is called in a changed plan
        stage = replace(stage, start_from=plan.stages[ANCESTOR].name)
    return stage_hash(plan, adjusted_stage(stage, settings), 0, settings)


def _counts(place: str) -> bool:
    """Whether a stage's weights depend on a value of the plan."""
    part, *inner = place.split(".")
    if part == "stages":
        return int(inner[0]) in (ANCESTOR, OWN)
    if part == "folds":
        return inner == ["0", "train"]
    return part not in FREE_KEYS


@pytest.mark.parametrize(
    ("kind", "place", "changed"),
    [(kind, *change) for kind, plan in PLANS.items() for change in _changes(plan)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_value_of_a_plan(kind, place, changed):
    assert (_hash(changed) != _hash(PLANS[kind])) == _counts(place)


def test_where_a_stage_starts_from():
    stages = [*PLAN.stages[:OWN], replace(PLAN.stages[OWN], start_from=None), *PLAN.stages[OWN + 1 :]]
    assert _hash(replace(PLAN, stages=stages)) != _hash(PLAN)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_new_field_of_a_plan_is_decided_on(plan):
    assert {field.name for field in fields(plan)} == PLAN_KEYS | set(FREE_KEYS)
    assert not PLAN_KEYS & set(FREE_KEYS)


def test_a_new_key_of_the_settings_is_decided_on():
    assert {field.name for field in fields(TrainerSettings)} == SETTINGS_KEYS | set(MACHINE_KEYS)
    assert not SETTINGS_KEYS & set(MACHINE_KEYS)


@pytest.mark.parametrize("name", [field.name for field in fields(TrainerSettings)])
def test_every_key_of_the_settings(name, tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    special = {
        "iterations": 50, "learning_rate": 0.5, "batch_size": 3, "num_workers": 3, "precision": "bf16",
        "clip_norm": 5.0, "ema_decay": 0.5, "select": "best", "validate_every": 7, "start_weights": str(weights),
        "channels_last": True, "pictures_every": 3, "seed": 3,
    }  # fmt: skip
    value = special[name] if name in special else _other(getattr(TrainerSettings(), name))
    settings = replace(TrainerSettings(), **{name: value})
    assert (_hash(PLAN, settings) != _hash(PLAN)) == (name not in MACHINE_KEYS)


def test_what_counts_where_the_best_weights_are_selected():
    best = TrainerSettings(select="best")
    assert _hash(PLAN, replace(best, validate_every=7)) != _hash(PLAN, best)
    fold = replace(PLAN.folds[0], val=["c"])
    other = replace(PLAN, folds=[fold, *PLAN.folds[1:]])
    assert _hash(other) == _hash(PLAN)
    assert _hash(other, best) != _hash(PLAN, best)


def test_weights_to_start_from_count_by_their_content(tmp_path):
    """Another place of the same file is the same."""
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file, content in zip(files, (b"1", b"1", b"2"), strict=True):
        file.write_bytes(content)
    hashes = [_hash(PLAN, TrainerSettings(start_weights=str(file))) for file in files]
    assert hashes[0] == hashes[1] != hashes[2]


def test_what_changed_is_told_by_its_place():
    """Five values differ; four are named. A key at its default is not in the record."""
    before = {
        "plan": {"seed": 1, "windows": [{"low": 2}], "margin_mm": 20.0},
        "trainer_cfg": {"batch_size": 4},
    }
    now = {
        "plan": {"seed": 2, "windows": [{"low": 3}], "margin_mm": 20.0, "new": "x" * 80},
        "trainer_cfg": {},
    }
    told = told_changes(before, {**now, "inputs": []})
    assert told.split("; ") == [
        "plan.seed was 1, is 2",
        'plan.windows was [{"low": 2}], is [{"low": 3}]',
        'plan.new was at its default, is "' + "x" * 56 + "...",
        "trainer_cfg.batch_size was 4, is at its default and 1 more",
    ]
    assert told_changes(now, now) == ""
