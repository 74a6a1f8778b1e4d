"""Identifiers of two tables that should name the same things: nothing is guessed, the user says how they differ."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER

Identifier = str | int

_WHOLE_NUMBER = re.compile(r"[0-9]+")
_SUFFIX = re.compile(r"[._-].+")


@dataclass(frozen=True)
class Spelling:
    """How identifiers are compared: as they are written, unless told otherwise.

    Attributes:
        suffixes: ends to cut off, such as ".mhd".
        numbers: whole numbers are compared as numbers: 001, "1" and 1 are the same.
    """

    suffixes: tuple[str, ...] = ()
    numbers: bool = False

    def keys(self, names: Sequence[Identifier], file: Path) -> list[Identifier]:
        """What the identifiers of one table are compared by.

        Raises:
            UserError: different ones become the same.
        """
        keys = {name: self.key(name) for name in names}
        first = {key: name for name, key in reversed(keys.items())}
        for name, key in keys.items():
            if first[key] != name:
                raise UserError(
                    "two identifiers become one as you ask to match them",
                    file=file,
                    found=f"{first[key]!r} and {name!r}",
                    remedy="Write them as they are meant in the file",
                )
        return [keys[name] for name in names]

    def key(self, name: Identifier) -> Identifier:
        """What one identifier is compared by."""
        if isinstance(name, str):
            for suffix in self.suffixes:
                name = name.removesuffix(suffix)
        if self.numbers and _WHOLE_NUMBER.fullmatch(str(name)):
            return int(name)
        return name


@dataclass(frozen=True)
class Named:
    """Identifiers of one file."""

    file: Path
    names: Collection[Identifier]


def check_meeting(known: Named, given: Named, what: str, *, all_known: bool = True) -> None:
    """Warn, with counts, where identifiers are in one of two files only.

    Args:
        known: what may be named.
        given: what is named.
        what: they stand for, such as "cases".
        all_known: those that nobody names are counted, too.

    Raises:
        UserError: none is in both, though both have some.
    """
    here, there = set(given.names), set(known.names)
    if not here or not there:
        return
    strange, absent = here - there, there - here
    if strange == here:
        raise UserError(
            f"no {what} in common with {known.file.name}",
            file=given.file,
            expected=f"such as {_some(there)}",
            found=_some(here),
            remedy=remedy_of(here, there),
        )
    parts = []
    if strange:
        parts.append(f"{len(strange)} of {len(here)} {what} are not in {known.file.name} ({_some(strange)})")
    if absent and all_known:
        parts.append(
            f"{len(absent)} of {len(there)} {what} of {known.file.name} are not here ({_some(absent)})"
        )
    if parts:
        LOGGER.warning("%s: %s", given.file, "; ".join(parts))


def _some(names: Collection[Identifier]) -> str:
    return repr(min(names, key=lambda name: (isinstance(name, str), name)))


def remedy_of(here: Collection[Identifier], there: Collection[Identifier]) -> str:
    """The option that would let identifiers meet, if one would."""
    numbers = Spelling(numbers=True)
    if {numbers.key(name) for name in here} & {numbers.key(name) for name in there}:
        return "If 001 and 1 are the same, say --match-numbers"
    one = str(min(map(str, here)))
    for other in map(str, there):
        shorter, longer = sorted((one, other), key=len)
        suffix = longer.removeprefix(shorter)
        if longer.startswith(shorter) and _SUFFIX.fullmatch(suffix):
            return f"If they are the same, say --strip-suffix {suffix}"
    return "Name them alike in both"
