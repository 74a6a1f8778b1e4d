"""What a machine or its administrator refuses, in words of the user: disk, permissions, open files, memory."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nndet_psma.core.errors import UserError

_DISK = (errno.ENOSPC, errno.EDQUOT)
_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
_FILES = (errno.EMFILE, errno.ENFILE)
_WANTED = re.compile(r"(?:tried to allocate (\d+) bytes|Unable to allocate ([\d.]+ \w+))")
"""PyTorch's allocator of main memory, and NumPy's."""

_NOT_LOADED = "failed to map segment"
"""The system's loader, of a library that does not fit into memory."""

_LOWER = "Lower the batch size or the number of processes, or end other programs"


def shortage(error: BaseException, file: Path | str | None = None, remedy: str = _LOWER) -> UserError | None:
    """The user's error that an error stands for; None where it is none of these.

    Args:
        error: any.
        file: that was being written; None takes the one that the error names.
        remedy: of too little memory.
    """
    if (
        isinstance(error, MemoryError)
        or (isinstance(error, RuntimeError) and _WANTED.search(str(error)))
        or (isinstance(error, ImportError) and _NOT_LOADED in str(error))
    ):
        return _memory(error, remedy)
    if not isinstance(error, OSError):
        return None
    denied = "cannot be read or written" if file is None else "cannot be written"
    file = error.filename if file is None else file
    if error.errno in _DISK:
        what, remedy = "the disk is full", "Free space and start the command again; nothing is half-written"
        return UserError(what, file=file, remedy=remedy)
    if error.errno in _PERMISSION and file is not None:
        found = str(error.strerror)
        return UserError(denied, file=file, found=found, remedy="Check its permissions")
    if error.errno in _FILES:
        return UserError("too many open files", file=file, remedy="Raise the limit: ulimit -n 4096")
    return _memory(error, remedy) if error.errno == errno.ENOMEM else None


@contextmanager
def memory_explained(remedy: str) -> Iterator[None]:
    """Say what to lower when memory runs out inside.

    Raises:
        UserError: memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError, ImportError) as error:
        told = shortage(error, remedy=remedy)
        if told is None:
            raise
        raise told from None


def _memory(error: BaseException, remedy: str) -> UserError:
    wanted = _WANTED.search(str(error))
    size = None
    if wanted is not None:
        size = f"{int(wanted[1]) / 1e9:.3f} GB" if wanted[1] else wanted[2]
    return UserError("memory ran out", found=size and f"{size} more wanted", remedy=remedy)
