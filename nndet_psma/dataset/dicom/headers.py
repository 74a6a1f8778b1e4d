"""Headers of DICOM files: what tells series and slices apart, read once and without the voxels.

Identifiers of the patient stay in :class:`DicomHeader`; nothing of it is written to a task.
"""

from __future__ import annotations

import hashlib
import mmap
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nndet_psma.core.budget import Budget, BudgetError
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.dataset.dicom.diffusion import b_value, is_isotropic
from nndet_psma.dataset.dicom.values import (
    UnreadableValue,
    has_zeroed_bytes,
    read_number,
    read_numbers,
    read_text,
    read_texts,
    unreadable,
)

if TYPE_CHECKING:
    from pydicom import Dataset

_SUFFIXES = (".dcm", ".ima", ".dicom")
_STRUCTURES = ("SEG", "RTSTRUCT")
_IMAGE_CLASSES = tuple(f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("2", "4", "128", "481.3", "66"))
"""Beginnings of the SOP classes of CT, MR, PET, structure sets and segmentations."""

_PREAMBLE = 132
"""Bytes before the first attribute of a part 10 file: 128 of anything and the mark DICM."""

_FIRST_GROUPS = (b"\x08\x00", b"\x02\x00")
"""How a file without preamble begins: an attribute of group 8, or of the file meta information."""

_HOLE = 1 << 20
"""Bytes of zeros before the voxels that no header has (overlays of 2048 x 2048 take half of it), but files that were
cut off while they were copied; they take a parser a minute, for it reads each eight of them as an attribute."""

_VOXELS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
"""Tag of the voxels (7FE0,0010) in either order of bytes."""

_META = 144
"""Where the file meta information begins behind its length, which is the first attribute of a part 10 file."""

_META_BYTES = 4096
_DEFLATED = b"\x02\x00\x10\x00UI\x16\x001.2.840.10008.1.2.1.99"
"""The attribute TransferSyntaxUID (0002,0010) of a file whose attributes are compressed together."""

_MOST_INFLATED = 64 << 20
"""Bytes of a deflated file: the largest structure sets take half."""

_MOST_ITEMS = 500_000
_ITEM = b"\xfe\xff\x00\xe0"
"""Items (FFFE,E000) of a file: eight bytes make one, and a parser keeps a kilobyte of each."""

_MOST_READS = 1_500_000
"""Of a parser in one file: two or three for an attribute. Structure sets of 30 000 contours need 0.5 million, images of
5000 frames 0.9 million."""

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class DicomHeader:
    """One file.

    Attributes:
        file: where it lies.
        source: the folder the user named that it was found under.
        patient_id, study, series, frame, instance: identifiers; "" where the file has none (frame: of reference).
        modality: such as CT, MR, PT, RTSTRUCT.
        description: of the series.
        image_type: such as ("ORIGINAL", "PRIMARY", "AXIAL").
        orientation: direction cosines (x, y, z) of increasing column index, then of increasing row index; or None.
        position: LPS (x, y, z) of the centre of the first pixel, mm; or None.
        shape: rows and columns.
        pixel_spacing: mm between rows and between columns; or None.
        thickness: distance between slices, or else their thickness, mm; or None.
        frames: images in the file.
        b_value: of a diffusion-weighted image, s/mm²; or None.
        isotropic: a trace-weighted image, mean of all directions.
        sequence: name of the sequence, sequence timing (echo and repetition time, ms).
        corrections: of a PET, such as DECY and ATTN.
        faults: attributes that cannot be read, with tag and value; they count as missing above.
        person: sex and date of birth, "" where missing: tell people with one identifier apart, stay in memory.
    """

    file: Path
    source: Path
    patient_id: str
    study: str
    series: str
    frame: str
    instance: str
    modality: str
    description: str
    image_type: tuple[str, ...]
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    shape: tuple[int, int]
    pixel_spacing: tuple[float, ...] | None
    thickness: float | None
    frames: int
    b_value: float | None
    isotropic: bool
    sequence: tuple[str, float, float]
    corrections: tuple[str, ...]
    faults: tuple[str, ...] = ()
    person: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Scan:
    """What lies in folders.

    Attributes:
        headers: of all DICOM files, copies left out.
        damaged: why files could not be read, by file.
    """

    headers: tuple[DicomHeader, ...]
    damaged: dict[Path, UserError]


def scan_folders(folders: Sequence[Path]) -> list[DicomHeader]:
    """Headers of all DICOM files below ``folders``, whatever their names are; other files are passed over.

    Raises:
        UserError: a folder does not exist, there is no DICOM file in any of them, or one is damaged.
    """
    scan = scan_all(folders)
    for error in scan.damaged.values():
        raise error
    return list(scan.headers)


def scan_all(folders: Sequence[Path]) -> Scan:
    """Like :func:`scan_folders`, but damaged files are listed instead of ending the work.

    Raises:
        UserError: a folder does not exist, or there is no DICOM file in any of them.
    """
    missing = next((folder for folder in folders if not folder.is_dir()), None)
    if missing is not None:
        raise UserError("no such folder", file=missing, remedy="Correct the path")
    headers: list[DicomHeader] = []
    damaged: dict[Path, UserError] = {}
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                try:
                    dataset = read_dataset(file)
                    if dataset is not None and _has_modality(dataset, file):
                        headers.append(make_header(dataset, file, folder))
                except UserError as error:
                    damaged[file] = error
                except UnreadableValue as error:
                    damaged[file] = unreadable(file, str(error))
    if not headers and not damaged:
        raise UserError("no DICOM files", file=folders[0], remedy="Name the folders that hold them")
    return Scan(tuple(_without_copies(headers, damaged)), damaged)


def read_dataset(file: Path, *, pixels: bool = False) -> Dataset | None:
    """A DICOM file, with or without preamble; None when it is none.

    Raises:
        UserError: it is one, but damaged, or its name says that it is one.
    """
    try:
        with file.open("rb") as stream:
            start, first = stream.read(_PREAMBLE), stream.read(2)
        has_mark = start[-4:] == b"DICM"
        may_be = has_mark or _may_be_bare(start)
        if (has_mark and first not in (*_FIRST_GROUPS, b"\x00\x08")) or (may_be and _has_hole(file)):
            raise ValueError("no header, or zeros in place of it")
        _check_items(file)
        if has_mark:
            _check_deflated(file)
        dataset = _parse(file, pixels=pixels, force=not has_mark) if may_be else None
    except Exception as error:  # whatever a parser of foreign bytes meets, the file is damaged
        raise UserError(
            "damaged DICOM file", file=file, found=reason_of(error), remedy="Export it again"
        ) from None
    if dataset is not None and (has_mark or "SOPClassUID" in dataset):
        if has_zeroed_bytes(dataset):
            raise UserError(
                "damaged DICOM file", file=file, found="zeros among the attributes", remedy="Export it again"
            )
        _state_syntax(dataset)
        return dataset
    if file.suffix.lower() in _SUFFIXES:
        raise UserError(
            "not a DICOM file, though it is named like one",
            file=file,
            expected="a file with the mark DICM (DICOM part 10)",
            remedy="Export it again, or take it away",
        )
    return None


def _check_items(file: Path) -> None:
    """Refuse a file of more items than any image or structure set has; most files are too small to hold them.

    Raises:
        BudgetError: it has.
    """
    if file.stat().st_size < len(_ITEM) * 2 * _MOST_ITEMS:
        return
    items = Budget(_MOST_ITEMS, "items")
    with file.open("rb") as stream:
        while content := stream.read(_HOLE):
            items.take(content.count(_ITEM))


def _check_deflated(file: Path) -> None:
    """Refuse a compressed file (not compressed voxels, but all attributes together) that unfolds without measure.

    Raises:
        BudgetError: it does.
    """
    with file.open("rb") as stream:
        start = stream.read(_META_BYTES)
        if _DEFLATED not in start:
            return
        budget, items = Budget(_MOST_INFLATED), Budget(_MOST_ITEMS, "items")
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        stream.seek(_META + int.from_bytes(start[_META - 4 : _META], "little"))
        while chunk := stream.read(_META_BYTES):
            while chunk:
                content = inflater.decompress(chunk, _HOLE)
                budget.take(len(content))
                items.take(content.count(_ITEM))
                chunk = inflater.unconsumed_tail


class _CountedReads(BufferedReader):
    """A file that may be read so many times: a parser asks for every attribute, and eight bytes make one."""

    def __init__(self, file: Path) -> None:
        super().__init__(FileIO(file))
        self._left = _MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise BudgetError(f"it holds more than {_MOST_READS} attributes")
        return super().read(-1 if size is None else size)


def _parse(file: Path, *, pixels: bool, force: bool) -> Dataset:
    from pydicom import config, dcmread

    # odd values are common and judged where they are used; warnings would print them, names of patients among them
    config.settings.reading_validation_mode = config.IGNORE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _CountedReads(file) as stream:
            return dcmread(stream, stop_before_pixels=not pixels, force=force)


def _has_modality(dataset: Dataset, file: Path) -> bool:
    """Whether a file is of a series: a directory of media and a hanging protocol are of none.

    Raises:
        UserError: it is an image, or cannot be told to be anything else, and has lost its modality.
    """
    if read_text(dataset, "Modality"):
        return True
    kind = read_text(dataset, "SOPClassUID")
    if file.name.upper() == "DICOMDIR" or "DirectoryRecordSequence" in dataset:
        return False
    if not kind or kind.startswith(_IMAGE_CLASSES):
        raise UserError(
            "damaged DICOM file", file=file, expected="Modality (0008,0060)", remedy="Export it again"
        )
    return False


def _has_hole(file: Path) -> bool:
    """Whether a file holds a long run of zeros before its voxels."""
    if file.stat().st_size < _HOLE:
        return False
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        hole = content.find(bytes(_HOLE))
        return hole >= 0 and all(content.find(mark, 0, hole) < 0 for mark in _VOXELS)


def _may_be_bare(start: bytes) -> bool:
    """Whether bytes can be the first attribute of a file that was written without preamble."""
    return start[:2] in _FIRST_GROUPS and len(start) == _PREAMBLE


def _state_syntax(dataset: Dataset) -> None:
    """State the encoding of a file that does not: pydicom has found it out, and needs it for the pixels."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" in getattr(dataset, "file_meta", ()):
        return
    implicit, little = dataset.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def reason_of(error: Exception) -> str:
    """What a library says, without the paths and values that it may quote at length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:100]}" if text else type(error).__name__


def make_header(dataset: Dataset, file: Path, source: Path) -> DicomHeader:
    """The part of a header that is needed; values that cannot be read are listed in it."""
    faults: list[str] = []

    def tried(read: Callable[[], _Value]) -> _Value | None:
        try:
            return read()
        except UnreadableValue as error:
            faults.append(str(error))
            return None

    def number(name: str) -> float | None:
        return tried(lambda: read_number(dataset, name))

    def numbers(name: str, count: int) -> tuple[float, ...] | None:
        return tried(lambda: read_numbers(dataset, name, count))

    modality = read_text(dataset, "Modality")
    return DicomHeader(
        file=file,
        source=source,
        patient_id=read_text(dataset, "PatientID"),
        study=read_text(dataset, "StudyInstanceUID"),
        series=read_text(dataset, "SeriesInstanceUID"),
        frame=read_text(dataset, "FrameOfReferenceUID"),
        instance=read_text(dataset, "SOPInstanceUID"),
        modality=modality,
        description=read_text(dataset, "SeriesDescription"),
        image_type=read_texts(dataset, "ImageType"),
        orientation=numbers("ImageOrientationPatient", 6),
        position=numbers("ImagePositionPatient", 3),
        shape=(int(number("Rows") or 0), int(number("Columns") or 0)),
        pixel_spacing=numbers("PixelSpacing", 2),
        thickness=number("SpacingBetweenSlices") or number("SliceThickness"),
        frames=int(number("NumberOfFrames") or 1),
        b_value=tried(lambda: b_value(dataset)) if modality == "MR" else None,
        isotropic=modality == "MR" and bool(tried(lambda: is_isotropic(dataset))),
        sequence=(
            read_text(dataset, "SequenceName"),
            number("EchoTime") or 0.0,
            number("RepetitionTime") or 0.0,
        ),
        corrections=read_texts(dataset, "CorrectedImage"),
        person=(read_text(dataset, "PatientSex"), read_text(dataset, "PatientBirthDate")),
        faults=tuple(faults),
    )


def _without_copies(headers: Iterable[DicomHeader], damaged: dict[Path, UserError]) -> list[DicomHeader]:
    """The same object exported twice, or found under two overlapping folders, counts once.

    A bad de-identification gives all slices one identifier: only what also lies in the same place and holds the same
    voxels is a copy. Of two different structure sets with one identifier it cannot be known which is meant: that is
    noted as damage.
    """
    groups: dict[tuple[object, ...], list[DicomHeader]] = {}
    for header in headers:
        key = (header.instance or str(header.file), header.series, header.position, header.patient_id)
        groups.setdefault(key, []).append(header)
    kept: list[DicomHeader] = []
    for group in groups.values():
        different = (
            group if len(group) == 1 else list({_content(one): one for one in reversed(group)}.values())
        )
        kept += reversed(different)
        if len(different) > 1 and group[0].modality in _STRUCTURES:
            damaged[different[0].file] = UserError(
                "two different structure sets have the same identifier",
                file=different[0].file,
                found=str(different[-1].file),
                remedy="Leave one of them out",
            )
    return kept


def _content(header: DicomHeader) -> str:
    """What makes a file a copy of another: the voxels and their scale of an image, else all its bytes."""
    try:
        dataset = None if header.modality in _STRUCTURES else read_dataset(header.file, pixels=True)
    except UserError:
        dataset = None
    if dataset is None or not dataset.get("PixelData"):
        return hash_files([header.file])
    scale = [read_text(dataset, name) for name in ("RescaleSlope", "RescaleIntercept")]
    return hash_json([header.shape, *scale, hashlib.blake2b(dataset.PixelData).hexdigest()])
