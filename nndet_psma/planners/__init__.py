"""Planning rules that every system shares.

The planner classes of the installed systems can be imported from here, too: they are found by their entry points and
loaded when they are asked for.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name != name.lower():  # a class; modules of this package are imported by Python itself
        from nndet_psma.planners.registry import PLANNERS

        if name in PLANNERS:
            return PLANNERS[name]
    raise AttributeError(f"module 'nndet_psma.planners' has no attribute '{name}'")


def __dir__() -> list[str]:
    from nndet_psma.planners.registry import PLANNERS

    return sorted({*globals(), *PLANNERS})
