"""Structures drawn on images, and how the user names them: contours of an RTSTRUCT, segments of a DICOM SEG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.errors import UserError


@dataclass(frozen=True)
class Roi:
    """One structure given by contours.

    Attributes:
        name: as the user called it, without blanks round it.
        contours: closed polygons in a plane, ``[N, 3]`` LPS (x, y, z) mm each (CLOSED_PLANAR); may be none.
        frame: UID of the frame of reference of the points, or "".
        series: UIDs of the image series that it was drawn on.
        file: the structure set.
        xor: closed polygons that are joined by even-odd counting (CLOSEDPLANAR_XOR).
        fault: why it cannot be drawn, or "".
    """

    name: str
    contours: tuple[NDArray[np.float64], ...]
    frame: str
    series: frozenset[str]
    file: Path
    xor: tuple[NDArray[np.float64], ...] = ()
    fault: str = ""

    @property
    def is_empty(self) -> bool:
        """Without contours, as planning systems keep structures of a template."""
        return not (self.contours or self.xor or self.fault)


@dataclass(frozen=True)
class Segment:
    """One structure given by voxels; these are read when it is drawn.

    Attributes:
        name: label of the segment, without blanks round it.
        number: of the segment.
        frame: UID of the frame of reference, or "".
        series: UIDs of the image series that it was drawn on.
        file: the DICOM SEG.
        fault: why it cannot be drawn, or "".
    """

    name: str
    number: int
    frame: str
    series: frozenset[str]
    file: Path
    fault: str = ""
    is_empty: bool = False


Structure = Roi | Segment

_Named = TypeVar("_Named", Roi, Segment, Roi | Segment)


@dataclass(frozen=True)
class StructureSet:
    """All structures of a file.

    Attributes:
        file: the RTSTRUCT or SEG.
        instance: its UID.
        series: UIDs of the image series that the structures were drawn on.
        rois: in the order of the file; names need not differ.
        label: of the set, for messages and to choose it.
        made: date and time as the file states them, "" where it does not; only compared.
    """

    file: Path
    instance: str
    series: frozenset[str]
    rois: tuple[Structure, ...]
    label: str = ""
    made: str = ""


NEWEST = "newest"
"""In place of a pattern: the structure set that was made last."""


def find_rois(rois: Iterable[_Named], patterns: Sequence[str]) -> list[_Named]:
    """Structures whose name fits one of the patterns (``*``, ``?`` and ``[...]``; case does not matter).

    A pattern that is literally the name of a structure means this one alone, whatever wildcards it seems to hold.
    """
    found = list(rois)
    wanted: set[str] = set()
    names = {roi.name.casefold() for roi in found}
    for pattern in (pattern.strip().casefold() for pattern in patterns):
        wanted |= {pattern} if pattern in names else {name for name in names if fnmatchcase(name, pattern)}
    return [roi for roi in found if roi.name.casefold() in wanted]


def choose_sets(sets: Sequence[StructureSet], pattern: str | None) -> tuple[StructureSet, ...]:
    """The structure sets of a study that the user means.

    Args:
        sets: of the study.
        pattern: of their label or file name, :data:`NEWEST`, or None for all.

    Raises:
        UserError: none fits, or which is the newest is not told.
    """
    if pattern is None or not sets:
        return tuple(sets)
    if pattern == NEWEST:
        last = max(one.made for one in sets)
        found = [one for one in sets if one.made == last]
        if not last or len(found) > 1:
            raise UserError(
                "which structure set is the newest is not told",
                file=sets[0].file.parent,
                expected="StructureSetDate and StructureSetTime that differ",
                found=_listed(found),
                remedy="Name it: --structure-set PATTERN of the label or the file",
            )
        return tuple(found)
    texts = {one.file: (one.label.casefold(), one.file.name.casefold()) for one in sets}
    wanted = pattern.strip().casefold()
    literal = [one for one in sets if wanted in texts[one.file]]
    fitting = literal or [one for one in sets if any(fnmatchcase(text, wanted) for text in texts[one.file])]
    if not fitting:
        raise UserError(
            f"no structure set called '{pattern}'",
            file=sets[0].file.parent,
            found=_listed(sets),
            remedy="Correct --structure-set",
        )
    return tuple(fitting)


def check_one_set(rois: Iterable[Structure], sets: Sequence[StructureSet]) -> None:
    """Two versions of a structure set must not be joined: of every name there is one set.

    Args:
        rois: that are taken; those without contours do not count.
        sets: that they come from.

    Raises:
        UserError: two sets have a structure of the same name; lists them, the newest first.
    """
    homes: dict[str, set[Path]] = {}
    for roi in rois:
        if not roi.is_empty:
            homes.setdefault(roi.name.casefold(), set()).add(roi.file)
    for name, files in homes.items():
        if len(files) > 1:
            shown = next(roi.name for one in sets for roi in one.rois if roi.name.casefold() == name)
            raise UserError(
                f"{len(files)} structure sets have a structure '{shown}'",
                file=min(files).parent,
                expected="one of each name",
                found=_listed(one for one in sets if one.file in files),
                remedy=f"Choose by label or file: --structure-set PATTERN, or --structure-set {NEWEST}",
            )


def _listed(sets: Iterable[StructureSet]) -> str:
    ordered = sorted(sets, key=lambda one: (one.made, str(one.file)), reverse=True)
    return ", ".join(f"{one.file.name} (label '{one.label}')" for one in ordered)
