"""Files and folders appear whole or not at all: write beside the target, then rename over it."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nndet_psma.core.errors import UserError

_TAG_LENGTH = 8
_MAX_NAME_BYTES = 255  # of every usual file system
_NUMBER_LIST = re.compile(r"\[\n([-+0-9.eE,\s]+)\]")  # strings hold no line breaks, so they never match


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; rename it over ``target`` when the block succeeds.

    The temporary name keeps the target's suffixes (writers such as SimpleITK choose the format by them).

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    temporary = _beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        temporary.replace(target)
    except OSError as error:
        raise _explain(error, target) from error
    finally:
        with suppress(OSError):  # whatever stopped us must not be hidden by a failing clean-up
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target``; it takes the place of ``target`` when the block succeeds.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    temporary = _beside(target)
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
        raise _explain(error, target) from error
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
        UserError: the file does not exist or is not JSON (names line and column).
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("file does not exist", file=file) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"not valid JSON ({error})", file=file, remedy="Correct or rewrite the file"
        ) from None


def remove_leftovers(folder: Path) -> None:
    """Clear what an interrupted run left directly inside ``folder``.

    Temporary files and folders are deleted. A folder that was moved aside to make room for its successor is put back
    when the successor never came.
    """
    for old in folder.glob(".old-*"):
        target = old.with_name(old.name.removeprefix(".old-")[_TAG_LENGTH + 1 :])
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.replace(target)
    for leftover in folder.glob(".tmp-*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _exchange(new: Path, target: Path) -> None:
    """Put the folder ``new`` in the place of ``target``; ``target`` comes back when that fails."""
    old = target.with_name(f".old-{_tag()}-{target.name}")
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


def _explain(error: OSError, target: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            "the disk is full",
            file=target,
            remedy="Free space and start the command again; nothing is half-written",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError(
            "cannot be written", file=target, found=str(error.strerror), remedy="Check its permissions"
        )
    return error


def _beside(target: Path) -> Path:
    """A temporary name; of a name as long as names may be, the front goes, as writers look at the suffix."""
    start, name = f".tmp-{_tag()}-", target.name
    while len(os.fsencode(start + name)) > _MAX_NAME_BYTES and len(os.fsencode(name)) <= _MAX_NAME_BYTES:
        name = name[1:]
    return target.with_name(start + name)


def _tag() -> str:
    return uuid.uuid4().hex[:_TAG_LENGTH]
