"""The one training engine.

The trainer classes of the installed systems can be imported from here, too: they are found by their entry points and
loaded when they are asked for.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name != name.lower():  # a class; modules of this package are imported by Python itself
        from nndet_psma.trainers.registry import TRAINERS

        if name in TRAINERS:
            return TRAINERS[name]
    raise AttributeError(f"module 'nndet_psma.trainers' has no attribute '{name}'")


def __dir__() -> list[str]:
    from nndet_psma.trainers.registry import TRAINERS

    return sorted({*globals(), *TRAINERS})
