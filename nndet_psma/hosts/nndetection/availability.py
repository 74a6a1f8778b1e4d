"""Is genuine nnDetection here, whole, and where?"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from nndet_psma.core.errors import UserError

HOME = "https://github.com/MIC-DKFZ/nnDetection"
KNOWN_COMMIT = "97a58f3"

_NEEDED = ("nndet/conf/config.yaml", "scripts/train.py")  # what a plain "pip install" leaves out


def require_nndetection() -> Path:
    """Folder that holds ``nndet`` and ``scripts``; imports neither.

    Raises:
        UserError: ``nndet`` cannot be imported, or was installed without its configuration and scripts.
    """
    spec = find_spec("nndet")
    if spec is None or spec.origin is None:
        raise UserError(
            "nnDetection (package nndet) is not installed; it is the detection framework this package plugs into",
            remedy="Leave out host=nndet: the embedded engine is the default (-o host=embedded) and needs no "
            f"nnDetection. Or install nnDetection as described at {HOME}, with 'pip install -e', or put its folder on "
            "PYTHONPATH",
        )
    root = Path(spec.origin).parents[1]
    missing = [name for name in _NEEDED if not (root / name).is_file()]
    if missing:
        raise UserError(
            "nnDetection is installed without its configuration or its scripts",
            file=root / missing[0],
            found="a plain install, which ships neither",
            remedy=f"Clone {HOME} and install it with 'pip install -e', or put the clone on PYTHONPATH",
        )
    return root
