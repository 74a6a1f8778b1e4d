"""Where the hook lies in an environment: put there, taken out, looked for."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from nndet_psma.core.atomic import atomic_file
from nndet_psma.core.errors import UserError

MODULE = "nndet_psma_hook"
SOURCE = Path(__file__).with_name("finder.py")

ABSENT, OUTDATED, INSTALLED = "not installed", "of another version", "installed"

_MARK = '"""Hook of nndet_psma:'  # how every version of the file begins
_START = f"import {MODULE}\n"


def site_folder() -> Path:
    """Folder of this environment whose ``.pth`` files Python reads when it starts."""
    return Path(sysconfig.get_paths()["purelib"])


def state(folder: Path) -> str:
    """One of :data:`ABSENT`, :data:`OUTDATED` and :data:`INSTALLED`."""
    module, start = _files(folder)
    if not module.is_file() and not start.is_file():
        return ABSENT
    whole = module.is_file() and start.is_file()
    same = whole and module.read_bytes() == SOURCE.read_bytes() and start.read_text() == _START
    return INSTALLED if same else OUTDATED


def install(folder: Path) -> None:
    """Write the hook, over an older one; in this order no start of Python meets a ``.pth`` without its module.

    Raises:
        UserError: a file of that name is not ours.
    """
    module, start = _own_files(folder)
    for file, content in ((module, SOURCE.read_text(encoding="utf-8")), (start, _START)):
        with atomic_file(file) as temporary:
            temporary.write_text(content, encoding="utf-8")


def remove(folder: Path) -> None:
    """Take the hook out; nothing happens where there is none.

    Raises:
        UserError: a file of that name is not ours.
    """
    module, start = _own_files(folder)
    start.unlink(missing_ok=True)
    module.unlink(missing_ok=True)


def _files(folder: Path) -> tuple[Path, Path]:
    return folder / f"{MODULE}.py", folder / f"{MODULE}.pth"


def _own_files(folder: Path) -> tuple[Path, Path]:
    module, start = _files(folder)
    for file, begin in ((module, _MARK), (start, _START)):
        if file.is_file() and not file.read_text(encoding="utf-8", errors="replace").startswith(begin):
            raise UserError("was not written by this package", file=file, remedy="Move it away")
    return module, start
