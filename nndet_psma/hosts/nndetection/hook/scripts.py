"""Console scripts that this package and nnDetection both have: whose are they? The one installed last wins."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

OURS, THEIRS, UNKNOWN = "nndet_psma", "nnDetection", "another package"

_SIGNS = (
    (OURS, b"nndet_psma"),
    (THEIRS, b"from scripts"),
    (THEIRS, b"__requires__ = 'nndet"),
    (THEIRS, b"nndet=="),
)
_ENDINGS = ("", ".exe", "-script.py")


def script_owners(names: Iterable[str], folder: Path | None = None) -> dict[str, str]:
    """By script, :data:`OURS`, :data:`THEIRS` or :data:`UNKNOWN`; scripts that do not exist are left out.

    Args:
        names: of scripts.
        folder: of an environment's scripts; None: that of this one.
    """
    folder = Path(sysconfig.get_paths()["scripts"]) if folder is None else folder
    found = {}
    for name in names:
        file = next(
            (folder / f"{name}{end}" for end in _ENDINGS if (folder / f"{name}{end}").is_file()), None
        )
        if file is not None:
            content = file.read_bytes()
            found[name] = next((owner for owner, sign in _SIGNS if sign in content), UNKNOWN)
    return found


def lost_scripts(folder: Path | None = None) -> list[str]:
    """Scripts that this package brought and that are another's now, or gone."""
    try:
        entries = distribution("nndet_psma").entry_points
    except PackageNotFoundError:  # run from a folder
        return []
    names = [entry.name for entry in entries if entry.group == "console_scripts"]
    owners = script_owners(names, folder)
    return [name for name in names if owners.get(name) != OURS]


def nndetection_beside_us() -> bool:
    """Whether ``nndet`` could be imported; it is not."""
    return find_spec("nndet") is not None
