"""Which system a task is for when the user names none."""

from __future__ import annotations

from dataclasses import dataclass

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.systems.system import SYSTEMS

CENTRAL = "psma25d"
"""What is meant where neither the user nor a data set says anything."""


@dataclass(frozen=True)
class SystemChoice:
    """A system and why it was taken."""

    name: str
    reason: str


def default_system(description: DatasetDescription) -> SystemChoice:
    """The system that says it suits a data set.

    Raises:
        UserError: none or several say so.
    """
    suited = [(name, SYSTEMS[name]().suits(description)) for name in SYSTEMS]
    choices = [SystemChoice(name, reason) for name, reason in suited if reason is not None]
    if len(choices) == 1:
        return choices[0]
    found = "; ".join(f"{choice.name}: {choice.reason}" for choice in choices)
    raise UserError(
        "several systems suit this data set" if choices else "no system suits this data set",
        found=found or None,
        expected=f"one of {', '.join(SYSTEMS)}",
        remedy="Name one with -o train=NAME",
    )
