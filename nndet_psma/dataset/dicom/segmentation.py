"""DICOM segmentations (SEG): names of the segments, and their voxels through highdicom (PS3.3 A.51, C.8.20)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.dicom.headers import read_dataset
from nndet_psma.dataset.dicom.structures import Segment, StructureSet
from nndet_psma.dataset.dicom.values import UnreadableValue, read_items, read_number, read_text, unreadable
from nndet_psma.dataset.images.images import Volume

if TYPE_CHECKING:
    from pydicom import Dataset

_FRACTIONAL = "FRACTIONAL"


def read_segmentation(file: Path) -> StructureSet:
    """Names and numbers of the segments of a DICOM SEG; voxels are read by :func:`read_segment`.

    Raises:
        UserError: the file is no SEG, or cannot be read.
    """
    dataset = read_dataset(file)
    try:
        if dataset is None or read_text(dataset, "Modality") != "SEG":
            raise UserError("no segmentation", file=file, expected="DICOM of modality SEG")
        return _read(dataset, file)
    except UnreadableValue as error:
        raise unreadable(file, str(error)) from None


def read_segment(segment: Segment) -> Volume:
    """Voxels of a segment, bool, on the grid of the file: planes without it may be missing at the ends.

    Raises:
        UserError: highdicom is missing, the segment is damaged or holds fractions, or its planes form no volume.
    """
    if segment.fault:
        raise UserError(
            f"segment '{segment.name}' cannot be drawn",
            file=segment.file,
            expected="a binary segment with a number of its own",
            found=segment.fault,
            remedy="Export it as a binary segmentation",
        )
    try:
        import highdicom
    except ImportError:
        raise UserError(
            "DICOM SEG needs a package that is not there",
            file=segment.file,
            expected="highdicom",
            remedy='Install it: pip install "nndet_psma[dicom]"',
        ) from None
    try:
        volume = highdicom.seg.segread(segment.file).get_volume(
            segment_numbers=[segment.number], combine_segments=True, relabel=True
        )
    except Exception as error:  # whatever a parser of foreign bytes meets, the file is damaged
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"segment '{segment.name}' cannot be read",
            file=segment.file,
            expected="evenly spaced, parallel frames",
            found=reason,
            remedy="Export it again",
        ) from None
    return _as_volume(np.asarray(volume.array) > 0, np.asarray(volume.affine, dtype=np.float64))


def _as_volume(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> Volume:
    """An array ``[plane, row, column]`` with its LPS affine; the planes are turned round to make it right-handed."""
    steps, origin = affine[:3, :3], affine[:3, 3]
    if np.linalg.det(steps[:, ::-1]) < 0:
        mask, origin = mask[::-1], origin + steps[:, 0] * (len(mask) - 1)
        steps = steps * np.array([-1.0, 1.0, 1.0])
    spacing = np.linalg.norm(steps, axis=0)
    directions = (steps / spacing)[:, ::-1]
    geometry = Geometry(
        shape=_triple(mask.shape),
        spacing=_triple(float(step) for step in spacing),
        origin=_triple(float(value) for value in origin),
        direction=tuple(float(value) + 0.0 for value in directions.ravel()),
    )
    return Volume(np.ascontiguousarray(mask), geometry)


def _triple(values: Any) -> tuple[Any, Any, Any]:
    first, second, third = values
    return first, second, third


def _read(dataset: Dataset, file: Path) -> StructureSet:
    series = frozenset(
        uid
        for item in read_items(dataset, "ReferencedSeriesSequence")
        if (uid := read_text(item, "SeriesInstanceUID"))
    )
    items = read_items(dataset, "SegmentSequence")
    numbers = [int(read_number(item, "SegmentNumber") or 0) for item in items]
    kind = read_text(dataset, "SegmentationType")
    used = _used(dataset)
    times = Counter(numbers)
    segments = tuple(
        Segment(
            name=read_text(item, "SegmentLabel"),
            number=number,
            frame=read_text(dataset, "FrameOfReferenceUID"),
            series=series,
            file=file,
            fault=_fault(number, times, kind),
            is_empty=bool(used) and number not in used,
        )
        for item, number in zip(items, numbers, strict=True)
    )
    return StructureSet(
        file=file,
        instance=read_text(dataset, "SOPInstanceUID"),
        series=series,
        rois=segments,
        label=read_text(dataset, "SeriesDescription") or read_text(dataset, "ContentLabel"),
        made=read_text(dataset, "ContentDate") + read_text(dataset, "ContentTime"),
    )


def _used(dataset: Dataset) -> set[int]:
    """Numbers of the segments that frames hold; none where the frames do not tell (label maps)."""
    return {
        int(read_number(item, "ReferencedSegmentNumber") or 0)
        for frame in read_items(dataset, "PerFrameFunctionalGroupsSequence")
        for item in read_items(frame, "SegmentIdentificationSequence")
    }


def _fault(number: int, times: Counter[int], kind: str) -> str:
    if times[number] > 1:
        return f"SegmentNumber (0062,0004) {number} for {times[number]} segments"
    return "SegmentationType (0062,0001) 'FRACTIONAL'" if kind == _FRACTIONAL else ""
