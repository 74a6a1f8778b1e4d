"""The plan of an earlier run: kept, replaced, or in the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from nndet_psma.core.atomic import write_text
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.systems.nodeseg.plan import NodeSegPlan
from nndet_psma.systems.nodeseg.planner import NodeSegChoices

_EDITABLE = ("training", "candidates", "postproc_defaults", "postproc_grid")


def overwritten(plan: NodeSegPlan, changes: dict[str, Any]) -> NodeSegPlan:
    """``plan_overwrites`` put in; UserError for what nnU-Net plans itself, which ``plan_cfg`` asks for."""
    foreign = [key for key in changes if key not in _EDITABLE]
    if foreign:
        raise UserError(
            f"plan_overwrites.{foreign[0]} cannot be put into nnU-Net's plans",
            expected=f"one of {', '.join(_EDITABLE)}",
            remedy="Use plan_cfg for the others",
        )
    if not changes:
        return plan
    content = {k: v for k, v in plan.to_json().items() if k not in ("schema", "version")}
    for key, value in changes.items():
        content[key] = {**content[key], **value}
    return NodeSegPlan.parse(content, "plan_overwrites")


def kept_or_written(paths: TaskPaths, config: Any, made: NodeSegPlan) -> tuple[NodeSegPlan, bool]:
    """The plan of an earlier run where it is the same, else ``made``, written; UserError where it differs."""
    file = paths.plan(config.plan)
    if file.is_file() and not config.prep.overwrite:
        there = NodeSegPlan.read(file)
        ours, theirs = (replace(plan, decisions={}).to_json() for plan in (made, there))
        differing = [key for key in ours if ours[key] != theirs[key]]
        if not differing:
            return there, True
        raise _other_plan(file, differing)
    made.write(file)
    return made, False


def check_export(paths: TaskPaths, config: Any, choices: NodeSegChoices) -> None:
    """Another plan of this name that exports otherwise is refused before a file of the export changes."""
    file = paths.plan(config.plan)
    if not file.is_file() or config.prep.overwrite:
        return
    there = NodeSegPlan.read(file)
    keys = ("crop", "margin_mm", "context_mm", "channels")
    differing = [key for key in keys if getattr(there, key) != getattr(choices, key)]
    if differing:
        raise _other_plan(file, differing)


def _other_plan(file: Path, differing: list[str]) -> UserError:
    return UserError(
        "another plan of this name exists (edited by hand, or made with other data or options)",
        file=file,
        found=f"other values of {', '.join(differing)}",
        remedy="Keep it with -o prep.plan=false, replace it with -o prep.overwrite=true, or write -o plan=NAME",
    )


@contextmanager
def put_back(files: list[Path]) -> Iterator[None]:
    """``files`` as they were when the block fails: nnU-Net's planner writes before a plan can be refused."""
    before = {file: file.read_text() if file.is_file() else None for file in files}
    try:
        yield
    except UserError:
        for file, text in before.items():
            if text is not None:
                write_text(file, text)
        raise
