"""The plan of an earlier run: kept, replaced, or in the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nndet_psma.core.atomic import write_text
from nndet_psma.core.errors import UserError
from nndet_psma.planners.kept_plan import other_plan
from nndet_psma.systems.nodeseg.plan import NodeSegPlan
from nndet_psma.systems.nodeseg.planner import NodeSegChoices


def check_export(file: Path, there: NodeSegPlan | None, choices: NodeSegChoices) -> None:
    """A plan of this name that exports otherwise is refused before a file of the export changes."""
    keys = ("crop", "margin_mm", "context_mm", "channels")
    differing = [key for key in keys if there is not None and getattr(there, key) != getattr(choices, key)]
    if differing:
        raise other_plan(file, differing)


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
