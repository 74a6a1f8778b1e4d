"""nndet_psma: self-configuring detection of PSMA-positive lymph nodes.

``from nndet_psma import Predictor`` loads a trained model in Python (:class:`nndet_psma.systems.api.Predictor`). That
imports torch; the package alone does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {"Predictor": "nndet_psma.systems.api", "NodeStatus": "nndet_psma.systems.nodestatus.api"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'nndet_psma' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
