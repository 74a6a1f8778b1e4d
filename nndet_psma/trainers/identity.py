"""What a stage's weights depend on, as one hash: the whole plan and all settings, but for what is named here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.artifacts.staged_plan import StagedPlan
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.schema import to_plain
from nndet_psma.trainers.settings import TrainerSettings, adjusted_stage

FREE_KEYS = {
    "plan_id": "a name",
    "planner": "a name; what it chose stands in the plan",
    "trainer": "a name; the folder of the model bears it",
    "made_from": "hash of the fingerprint; what was chosen by it stands in the plan",
    "target": "what was chosen for the machine stands in the plan",
    "decisions": "words",
    "training_images": "measured on the prepared cases, which are counted apart; compared with in prediction",
    "postproc_defaults": "used after training",
    "postproc_grid": "used after training",
    "folds": "the cases of the stage's own fold are counted apart",
    "stages": "the stage and those it descends from are counted apart",
}
"""Fields of a plan that may change under a training that goes on, and why. Every other field counts."""


IDENTITY_FILE = "identity.json"
"""What a stage was trained from, in the stage's folder, so that a refusal can name what changed."""

_MOST_NAMED, _LONGEST = 4, 60  # changes in a message, and characters of a value there
_ABSENT = object()


def stage_identity(
    plan: StagedPlan, stage: Stage, fold: int, settings: TrainerSettings, inputs: Sequence[str] = ()
) -> dict[str, Any]:
    """What determines a stage's weights, its ancestors included; the number of processes is not among it.

    Args:
        plan: of the fold.
        stage: as adjusted by ``settings``.
        fold: index of the fold.
        settings: ``trainer_cfg``.
        inputs: hashes of the prepared cases that the training reads.

    Raises:
        UserError: the file of ``start_weights`` does not exist.
    """
    parent = None
    if stage.start_from is not None:
        ancestor = adjusted_stage(plan.stage(stage.start_from), settings)
        parent = stage_identity(plan, ancestor, fold, settings, inputs)
    content = {
        "plan": {name: value for name, value in to_plain(plan).items() if name not in FREE_KEYS},
        "stage": to_plain(stage),
        "train": plan.folds[fold].train,
        "trainer_cfg": settings.result_keys(),
        "parent": parent,
        "inputs": list(inputs),
    }
    if settings.select == "best":
        content["val"] = plan.folds[fold].val
    return content


def identity_hash(identity: Mapping[str, Any]) -> str:
    """One hash of it; weights are kept under it."""
    parent = identity["parent"]
    parts = {**identity, "parent": None if parent is None else identity_hash(parent)}
    return hash_json(list(parts.values()))


def told_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first few values that differ, as ``plan.margin_mm was 20.0, is 25.0``."""
    found = [
        f"{place} {_told(old, 'was')}, {_told(new, 'is')}" for place, old, new in _changes(before, now, "")
    ]
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return "; ".join(found[:_MOST_NAMED]) + more


def _changes(before: Any, now: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    if before == now:
        return
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in [*before, *(key for key in now if key not in before)]:
            inner = f"{place}.{key}" if place else str(key)
            yield from _changes(before.get(key, _ABSENT), now.get(key, _ABSENT), inner)
    else:
        yield place, before, now


def _told(value: Any, verb: str) -> str:
    if value is _ABSENT:
        return f"{verb} at its default"
    text = json.dumps(value)
    return f"{verb} {text if len(text) <= _LONGEST else text[: _LONGEST - 3] + '...'}"
