"""A plan in words: every decision with value, rule and evidence; what differs between two plans."""

from __future__ import annotations

from typing import Any, NamedTuple

from nndet_psma.artifacts.plan import Plan

# what a plan is called and was made from is no decision
BOOKKEEPING = (
    "schema",
    "version",
    "plan_id",
    "planner",
    "trainer",
    "task",
    "made_from",
    "training_images",
    "modalities",
    "classes",
    "decisions",
)


_LONGEST = 240  # characters of a value


class DecisionRow(NamedTuple):
    """One decision of a plan as texts."""

    key: str
    value: str
    rule: str
    evidence: str


class Difference(NamedTuple):
    """A key whose value differs: dotted key, value and evidence in each plan; "" where a plan lacks the key."""

    key: str
    first: str
    second: str
    first_evidence: str
    second_evidence: str


def describe_plan(plan: Plan) -> list[DecisionRow]:
    """Rows of the plan's decisions, in the order in which they were taken."""
    return [
        DecisionRow(key, _value_text(plan, key), decision.rule, decision.evidence)
        for key, decision in plan.decisions.items()
    ]


def compare_plans(first: Plan, second: Plan) -> list[Difference]:
    """Keys with different values, in the order of the file; texts of decisions do not count as differences."""
    ours, theirs = _flat(first), _flat(second)
    _gather_missing(ours, theirs)
    return [
        Difference(
            key,
            _short(ours.get(key)),
            _short(theirs.get(key)),
            _evidence(first, key),
            _evidence(second, key),
        )
        for key in dict.fromkeys([*ours, *theirs])
        if ours.get(key) != theirs.get(key)
    ]


def _flat(plan: Plan) -> dict[str, Any]:
    """Dotted keys to values; stages and windows by name, other lists whole."""
    content = {k: v for k, v in plan.to_json().items() if k not in ("schema", "version", "decisions")}
    flat: dict[str, Any] = {}
    _flatten("", content, flat)
    return flat


def _flatten(prefix: str, value: Any, flat: dict[str, Any]) -> None:
    if isinstance(value, list) and value and all(isinstance(v, dict) and "name" in v for v in value):
        value = {item["name"]: {k: v for k, v in item.items() if k != "name"} for item in value}
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            _flatten(f"{prefix}.{key}" if prefix else str(key), inner, flat)
    else:
        flat[prefix] = value


def _gather_missing(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """A stage, window or scaling that only one plan has becomes one entry instead of one for each of its keys."""
    for here, there in ((ours, theirs), (theirs, ours)):
        for prefix in dict.fromkeys(_item(key) for key in list(here) if _item(key)):
            if any(_item(key) == prefix for key in there):
                continue
            keys = [key for key in here if _item(key) == prefix]
            here[prefix] = ", ".join(f"{key.rpartition('.')[2]} {_short(here.pop(key))}" for key in keys)


def _item(key: str) -> str:
    """``stages.NAME`` of ``stages.NAME.iterations``; "" of keys that belong to no named item."""
    parts = key.split(".")
    return ".".join(parts[:2]) if parts[0] in ("stages", "windows", "scalings") and len(parts) > 2 else ""


def _evidence(plan: Plan, key: str) -> str:
    """Evidence of the decision nearest to a dotted key: its own, else that of the part of the plan it is in."""
    while key:
        if key in plan.decisions:
            return plan.decisions[key].evidence
        key = key.rpartition(".")[0]
    return ""


def _short(value: Any) -> str:
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _value_text(plan: Plan, key: str) -> str:
    own = plan.text_of(key)
    if own is not None:
        return own
    value: Any = plan
    for part in key.split("."):
        value = getattr(value, part)
    if key == "windows":
        return ", ".join(f"{w.lower:g}..{w.upper:g}" for w in value) or "none"
    if key == "scalings":
        return ", ".join(f"{s.name} {s.lower:.4g}..{s.upper:.4g}" for s in value) or "none"
    if key == "folds":
        return (
            ", ".join(f"{len(fold.train)}/{len(fold.val)}" for fold in plan.folds) + " train/validation cases"
        )
    if key == "target":
        return "CPU" if value.device == "cpu" else f"{value.gpus} x GPU with {value.memory_gb:g} GB"
    if key == "augmentation":
        return f"scale {value.scale[0]:g}..{value.scale[1]:g}, rotation {value.rotation_degrees:g} degrees"
    if key == "postproc_grid":
        return ", ".join(f"{name} {len(values)}" for name, values in value.items()) + " values"
    if key == "postproc_defaults":
        return ", ".join(f"{name} {_short(setting) or 'off'}" for name, setting in value.items())
    return _short(value) if value is not None else "none"
