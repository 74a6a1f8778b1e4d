"""The error a user sees: what is wrong, in which file, what was expected, how to mend it."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable
from os import PathLike


class UserError(Exception):
    """A mistake in the user's data, arguments or configuration.

    The command line prints it as one line without a traceback and exits with code 2. Code that can name
    the file and the remedy raises this; everything else is a bug and keeps its traceback.
    """

    def __init__(
        self,
        what: str,
        *,
        file: str | PathLike[str] | None = None,
        expected: str | None = None,
        found: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.what = what
        self.file = None if file is None else str(file)
        self.expected = expected
        self.found = found
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        text = self.what if self.file is None else f"{self.file}: {self.what}"
        if self.expected is not None:
            text += f"; expected {self.expected}"
        if self.found is not None:
            text += f"; found {self.found}"
        text = text.rstrip(".") + "."
        if self.remedy is not None:
            text += f" {self.remedy.rstrip('.')}" + ("" if self.remedy.endswith("?") else ".")
        return text

    def __reduce__(self) -> tuple[object, ...]:
        # keyword-only arguments do not survive the default pickling between worker processes
        return _rebuild, (self.what, self.file, self.expected, self.found, self.remedy)


def _rebuild(
    what: str, file: str | None, expected: str | None, found: str | None, remedy: str | None
) -> UserError:
    return UserError(what, file=file, expected=expected, found=found, remedy=remedy)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The remedy where a name is not there but one much like it is; None where none is.

    Args:
        word: what was typed.
        known: what there is.
    """
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean {nearest[0]}?" if nearest else None


def utf8_path(file: str | PathLike[str]) -> str:
    """The path as text for a library in C++, which ends the whole process on a name that is not UTF-8.

    Raises:
        UserError: it is not.
    """
    text = os.fspath(file)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _not_utf8(text) from error
    return text


def name_error(error: BaseException) -> UserError | None:
    """What a user is told where a name is too long for the file system or not UTF-8; None of every other error."""
    if isinstance(error, OSError):
        if error.errno != errno.ENAMETOOLONG:
            return None
        return UserError(
            "the name is too long for the file system",
            file=error.filename,
            remedy="Give the case or the folder a shorter name",
        )
    if not isinstance(error, UnicodeEncodeError):
        return None
    return _not_utf8(error.object) if any("\ud800" <= sign <= "\udfff" for sign in error.object) else None


def _not_utf8(text: str) -> UserError:
    return UserError("the name is not UTF-8", file=text, remedy="Rename the file or folder in UTF-8")
