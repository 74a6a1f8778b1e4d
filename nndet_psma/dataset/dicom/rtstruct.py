"""Radiotherapy structure sets (RTSTRUCT): names, numbers and contours of structures (DICOM PS3.3 C.8.8.5, C.8.8.6).

What is wrong with one structure is noted in it, and matters only when the structure is asked for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.dicom.headers import read_dataset
from nndet_psma.dataset.dicom.structures import Roi, StructureSet
from nndet_psma.dataset.dicom.values import (
    UnreadableValue,
    describe,
    label,
    read_items,
    read_number,
    read_numbers,
    read_text,
    unreadable,
)

if TYPE_CHECKING:
    from pydicom import Dataset

_CLOSED = "CLOSED_PLANAR"
_XOR = "CLOSEDPLANAR_XOR"
_ENCLOSE_NOTHING = ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")
_FEWEST_POINTS = 3


def read_rtstruct(file: Path) -> StructureSet:
    """Read a structure set.

    Raises:
        UserError: the file is no RTSTRUCT, or cannot be read.
    """
    dataset = read_dataset(file)
    try:
        if dataset is None or read_text(dataset, "Modality") != "RTSTRUCT":
            raise UserError("no structure set", file=file, expected="DICOM of modality RTSTRUCT")
        return _read(dataset, file)
    except UnreadableValue as error:
        raise unreadable(file, str(error)) from None


def referenced_series(dataset: Dataset) -> frozenset[str]:
    """UIDs of the image series a structure set was drawn on."""
    found = (
        read_text(series, "SeriesInstanceUID")
        for frame in read_items(dataset, "ReferencedFrameOfReferenceSequence")
        for study in read_items(frame, "RTReferencedStudySequence")
        for series in read_items(study, "RTReferencedSeriesSequence")
    )
    return frozenset(uid for uid in found if uid)


@dataclass
class _Drawn:
    """What the contour items of one number hold."""

    closed: list[NDArray[np.float64]] = field(default_factory=list)
    xor: list[NDArray[np.float64]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def _read(dataset: Dataset, file: Path) -> StructureSet:
    named = read_items(dataset, "StructureSetROISequence")
    times = Counter(number for item in named if (number := _number(item, "ROINumber")) is not None)
    drawn: dict[int, _Drawn] = {}
    lost = False
    for item in read_items(dataset, "ROIContourSequence"):
        number = _number(item, "ReferencedROINumber")
        if number not in times or number is None:
            lost = lost or bool(read_items(item, "ContourSequence"))
        else:
            _add_contours(item, drawn.setdefault(number, _Drawn()))
    series = referenced_series(dataset)
    rois = tuple(_roi(item, drawn, times, lost, series, file) for item in named)
    return StructureSet(
        file=file,
        instance=read_text(dataset, "SOPInstanceUID"),
        series=series,
        rois=rois,
        label=read_text(dataset, "StructureSetLabel"),
        made=read_text(dataset, "StructureSetDate") + read_text(dataset, "StructureSetTime"),
    )


def _roi(
    item: Dataset,
    drawn: dict[int, _Drawn],
    times: Counter[int],
    lost: bool,
    series: frozenset[str],
    file: Path,
) -> Roi:
    number = _number(item, "ROINumber")
    own = _Drawn() if number is None else drawn.get(number, _Drawn())
    return Roi(
        name=read_text(item, "ROIName"),
        contours=tuple(own.closed),
        frame=read_text(item, "ReferencedFrameOfReferenceUID"),
        series=series,
        file=file,
        xor=tuple(own.xor),
        fault=_fault(item, number, drawn, times, lost),
    )


def _fault(
    item: Dataset, number: int | None, drawn: dict[int, _Drawn], times: Counter[int], lost: bool
) -> str:
    """Why a structure cannot be drawn, or ""."""
    if number is None:
        return describe(item, "ROINumber")
    if times[number] > 1:
        return f"{label('ROINumber')} {number} for {times[number]} structures: whose its contours are is not told"
    if number not in drawn:
        missing = f"contours whose {label('ReferencedROINumber')} is of no structure, which may be its own"
        return missing if lost else ""
    return next(iter(drawn[number].faults), "")


def _add_contours(item: Dataset, drawn: _Drawn) -> None:
    try:
        contours = read_items(item, "ContourSequence")
    except UnreadableValue as error:
        drawn.faults.append(str(error))
        return
    for k, contour in enumerate(contours, start=1):
        try:
            kind = read_text(contour, "ContourGeometricType")
            if kind in (_CLOSED, _XOR):
                (drawn.closed if kind == _CLOSED else drawn.xor).append(_points(contour))
            elif kind not in _ENCLOSE_NOTHING:
                drawn.faults.append(f"contour {k} with {describe(contour, 'ContourGeometricType')}")
        except UnreadableValue as error:
            drawn.faults.append(f"contour {k} with {error}")


def _points(contour: Dataset) -> NDArray[np.float64]:
    """``[N, 3]`` corners (x, y, z).

    Raises:
        UnreadableValue: they are no polygon, or not as many as are stated.
    """
    values = read_numbers(contour, "ContourData") or ()
    stated = read_number(contour, "NumberOfContourPoints")
    if len(values) % 3 or len(values) < 3 * _FEWEST_POINTS:
        count = f"{len(values)} values of {label('ContourData')}"
        raise UnreadableValue(f"{count}, which enclose nothing")
    if stated is not None and 3 * stated != len(values):
        raise UnreadableValue(f"{len(values) // 3} points and {describe(contour, 'NumberOfContourPoints')}")
    return np.array(values, dtype=np.float64).reshape(-1, 3)


def _number(item: Dataset, name: str) -> int | None:
    try:
        number = read_number(item, name)
    except UnreadableValue:
        return None
    return None if number is None else int(number)
