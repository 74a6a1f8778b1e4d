"""The plan of an earlier run is kept where it comes out the same, and never replaced without a word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nndet_psma.artifacts.plan import Plan
from nndet_psma.core.errors import UserError
from nndet_psma.planners.describe import compare_plans


def refuse_other_plan(file: Path, there: Plan, made: Plan) -> None:
    """Refuse ``made`` where the plan that is ``there`` says something else; measured training images are no choice.

    Raises:
        UserError: names the keys that differ.
    """
    alike = replace(made, training_images=there.training_images)
    differing = list(dict.fromkeys(row.key.split(".")[0] for row in compare_plans(there, alike)))
    if differing:
        raise other_plan(file, differing)


def other_plan(file: Path, differing: list[str]) -> UserError:
    """The error that names the keys in which a plan of the same name differs."""
    return UserError(
        "another plan of this name exists (edited by hand, or made with other data or options)",
        file=file,
        found=f"other values of {', '.join(differing)}",
        remedy="Keep it with -o prep.plan=false, replace it with -o prep.overwrite=true, or write -o plan=NAME",
    )
