"""Plans of whichever installed system, read from their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, TypeVar, overload

from nndet_psma.artifacts.plan import Plan
from nndet_psma.core.atomic import read_json
from nndet_psma.core.errors import UserError
from nndet_psma.core.registry import Registry


class PlanOwner(Protocol):
    """What reading a plan asks of a system; all of it is :class:`nndet_psma.systems.system.System`."""

    plan_type: type[Plan]


SYSTEMS: Registry[PlanOwner] = Registry("system", "nndet_psma.systems")
"""The systems by name. An entry point of any installed package adds one."""


def plan_type_of(content: Any) -> type[Plan] | None:
    """The type of the plan that parsed JSON holds; None where it is no plan of an installed system."""
    if not isinstance(content, dict):
        return None
    types = (SYSTEMS[name].plan_type for name in SYSTEMS)
    return next((plan_type for plan_type in types if plan_type.reads(content)), None)


P = TypeVar("P", bound=Plan)


@overload
def read_plan(file: Path) -> Plan: ...
@overload
def read_plan(file: Path, kind: type[P]) -> P: ...
def read_plan(file: Path, kind: type[Plan] = Plan) -> Plan:
    """The plan in a file, of whichever system, or of those whose plans are of a ``kind``.

    Raises:
        UserError: no plan of an installed system, one of another kind, or an invalid one.
    """
    content = read_json(file)
    plan_type = plan_type_of(content)
    if plan_type is None:
        found = content.get("schema") if isinstance(content, dict) else None
        raise UserError(
            "is another kind of file",
            file=file,
            expected=f"a plan of one of the systems {', '.join(SYSTEMS)}",
            found=None if found is None else f'"schema": "{found}"',
            remedy="Install the package of the system that it was made by" if found else None,
        )
    if not issubclass(plan_type, kind):
        raise UserError(
            "is a plan of another system",
            file=file,
            expected=f"a {kind.__name__}",
            found=f"a {plan_type.__name__}",
        )
    return plan_type.read(file)
