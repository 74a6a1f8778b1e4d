"""Files and folders appear whole or not at all: write beside the target, then rename over it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nndet_psma.core.errors import UserError, name_error
from nndet_psma.core.parsing import parse_json, read_text
from nndet_psma.core.shortages import shortage

_TEMPORARY, _ASIDE = ".tmp-", ".old-"
_TAG = re.compile(r"([0-9a-f]{2})([0-9a-f]{6})[0-9a-f]{4}-|[0-9a-f]{8}-")
"""Machine and process of the writer, and a random part; eight digits as earlier versions wrote them, without owner."""

_OLD_HOURS = 24.0
"""What nobody has written to for so long has no living writer, whatever process has its number now."""

_MAX_NAME_BYTES = 255  # of every usual file system
_NUMBER_LIST = re.compile(r"\[\n([-+0-9.eE,\s]+)\]")  # strings hold no line breaks, so they never match


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; rename it over ``target`` when the block succeeds.

    The temporary name keeps the target's suffixes (writers such as SimpleITK choose the format by them).

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    temporary = temporary_beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        temporary.replace(target)
    except OSError as error:
        raise shortage(error, target) or name_error(error) or error from error
    finally:
        with suppress(OSError):  # whatever stopped us must not be hidden by a failing clean-up
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target``; it takes the place of ``target`` when the block succeeds.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    temporary = temporary_beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        if target.exists():
            _exchange(temporary, target)
        else:
            temporary.replace(target)
    except OSError as error:
        raise shortage(error, target) or name_error(error) or error from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(target: Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``target`` atomically."""
    with atomic_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, lists of numbers on one line; NaN is refused, it is not JSON."""
    text = json.dumps(content, indent=2, allow_nan=False)
    write_text(target, _NUMBER_LIST.sub(lambda match: f"[{' '.join(match[1].split())}]", text) + "\n")


def read_json(file: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file does not exist, is not JSON (names line and column), or is too large or too deep.
    """
    try:
        return parse_json(read_text(file))
    except FileNotFoundError:
        raise UserError(
            "file does not exist", file=file, remedy="Correct the path or write the file"
        ) from None
    except ValueError as error:
        raise UserError(
            f"not valid JSON ({error})", file=file, remedy="Correct or rewrite the file"
        ) from None


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Yield a folder beside ``target`` for what is needed to make it; it is gone afterwards.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    folder = temporary_beside(target)
    try:
        folder.mkdir(parents=True)
        yield folder
    except OSError as error:
        raise shortage(error, target) or name_error(error) or error from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def temporary_beside(target: Path) -> Path:
    """A new hidden name in the folder of ``target`` that tells who writes there: see :func:`remove_leftovers`.

    Of a name as long as names may be the front goes, as writers look at the suffix.
    """
    name = target.name
    temporary = _marked(_TEMPORARY, target)
    while len(os.fsencode(temporary.name)) > _MAX_NAME_BYTES >= len(os.fsencode(name)):
        temporary = temporary.with_name(temporary.name.replace(name, name[1:]))
        name = name[1:]
    return temporary


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Clear what interrupted runs left directly inside ``folder``; what a living process writes is left alone.

    Temporary files and folders are deleted. A folder that was moved aside to make room for its successor is put back
    when the successor never came.

    Args:
        folder: to look into; need not exist.
        name: only what was to become this file or folder; None everything.
    """
    for old, target in _left(folder, _ASIDE, name):
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.replace(target)
    for leftover, _ in _left(folder, _TEMPORARY, name):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _left(folder: Path, kind: str, name: str | None) -> list[tuple[Path, Path]]:
    """What nobody writes any more, with what it was to become."""
    found = []
    for path in folder.glob(f"{kind}*"):
        tag = _TAG.match(path.name, len(kind))
        if tag is None:
            continue
        target = path.with_name(path.name[tag.end() :])
        if name in (None, target.name) and not _is_written(path, tag):
            found.append((path, target))
    return found


def _is_written(path: Path, tag: re.Match[str]) -> bool:
    """Whether the writer may be alive; that of another machine is judged by what it wrote last."""
    if tag[1] is None or (tag[1] == _machine() and not is_running(int(tag[2], 16))):
        return False
    try:
        last = max(each.stat().st_mtime for each in (path, *path.rglob("*")))
    except FileNotFoundError:  # it goes on writing, or another process clears it
        return True
    return time.time() - last < 3600 * _OLD_HOURS


def is_running(pid: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        with suppress(PermissionError):  # of another user, but there
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _exchange(new: Path, target: Path) -> None:
    """Put the folder ``new`` in the place of ``target``; ``target`` comes back when that fails."""
    old = _marked(_ASIDE, target)
    target.replace(old)
    try:
        new.replace(target)
    except OSError:
        old.replace(target)
        raise
    shutil.rmtree(old)


def _flush(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def _marked(kind: str, target: Path) -> Path:
    return target.with_name(f"{kind}{_machine()}{os.getpid():06x}{secrets.token_hex(2)}-{target.name}")


def _machine() -> str:
    """Two digits that tell machines on one file system apart, mostly."""
    return hashlib.blake2b(socket.gethostname().encode(), digest_size=1).hexdigest()
