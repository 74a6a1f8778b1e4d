"""Headers of DICOM files: what tells series and slices apart, read once and without the voxels.

Identifiers of the patient stay in :class:`DicomHeader`; nothing of it is written to a task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.dicom.diffusion import b_value, is_isotropic

if TYPE_CHECKING:
    from pydicom import Dataset

_SUFFIXES = (".dcm", ".ima", ".dicom")


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


def scan_folders(folders: Sequence[Path]) -> list[DicomHeader]:
    """Headers of all DICOM files below ``folders``, whatever their names are; other files are passed over.

    Raises:
        UserError: a folder does not exist, or there is no DICOM file in any of them.
    """
    missing = next((folder for folder in folders if not folder.is_dir()), None)
    if missing is not None:
        raise UserError("no such folder", file=missing)
    headers = [header for folder in folders for header in _scan(folder)]
    if not headers:
        raise UserError("no DICOM files", file=folders[0], remedy="Name the folders that hold them")
    return _without_copies(headers)


def read_dataset(file: Path, *, pixels: bool = False) -> Dataset | None:
    """A DICOM file, or None when it is none.

    Raises:
        UserError: it is one, but damaged, or its name says that it is one.
    """
    from pydicom import config, dcmread
    from pydicom.errors import InvalidDicomError

    # odd values are common and judged where they are used; warnings would print them, names of patients among them
    config.settings.reading_validation_mode = config.IGNORE
    try:
        return dcmread(file, stop_before_pixels=not pixels)
    except InvalidDicomError:
        if file.suffix.lower() in _SUFFIXES:
            raise UserError(
                "not a DICOM file, though it is named like one",
                file=file,
                expected="a file with the mark DICM (DICOM part 10)",
                remedy="Export it again, or take it away",
            ) from None
        return None
    except (EOFError, OSError, ValueError, KeyError, NotImplementedError) as error:
        raise UserError("damaged DICOM file", file=file, found=str(error), remedy="Export it again") from None


def _scan(folder: Path) -> Iterator[DicomHeader]:
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.name.startswith("."):
            dataset = read_dataset(file)
            if dataset is not None and "Modality" in dataset:  # a DICOMDIR has none
                yield make_header(dataset, file, folder)


def make_header(dataset: Dataset, file: Path, source: Path) -> DicomHeader:
    """The part of a header that is needed."""
    return DicomHeader(
        file=file,
        source=source,
        patient_id=_text(dataset, "PatientID"),
        study=_text(dataset, "StudyInstanceUID"),
        series=_text(dataset, "SeriesInstanceUID"),
        frame=_text(dataset, "FrameOfReferenceUID"),
        instance=_text(dataset, "SOPInstanceUID"),
        modality=_text(dataset, "Modality"),
        description=_text(dataset, "SeriesDescription"),
        image_type=_texts(dataset, "ImageType"),
        orientation=_numbers(dataset, "ImageOrientationPatient", 6),
        position=_numbers(dataset, "ImagePositionPatient", 3),
        shape=(int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)),
        pixel_spacing=_numbers(dataset, "PixelSpacing", 2),
        thickness=_number(dataset, "SpacingBetweenSlices") or _number(dataset, "SliceThickness"),
        frames=int(dataset.get("NumberOfFrames") or 1),
        b_value=b_value(dataset) if _text(dataset, "Modality") == "MR" else None,
        isotropic=is_isotropic(dataset),
        sequence=(
            _text(dataset, "SequenceName"),
            _number(dataset, "EchoTime") or 0.0,
            _number(dataset, "RepetitionTime") or 0.0,
        ),
        corrections=_texts(dataset, "CorrectedImage"),
    )


def _without_copies(headers: Iterable[DicomHeader]) -> list[DicomHeader]:
    """The same object exported twice, or found under two overlapping folders, counts once.

    Raises:
        UserError: two different structure sets have one identifier; which of them is meant cannot be known.
    """
    seen: dict[tuple[str, str], DicomHeader] = {}
    for header in headers:
        other = seen.setdefault((header.instance or str(header.file), header.series), header)
        is_plan = other is not header and header.modality == "RTSTRUCT"
        if is_plan and header.file.read_bytes() != other.file.read_bytes():
            raise UserError(
                "two different structure sets have the same identifier",
                file=header.file,
                found=str(other.file),
                remedy="Leave one of them out",
            )
    return list(seen.values())


def _text(dataset: Dataset, name: str) -> str:
    return str(dataset.get(name) or "").strip()


def _texts(dataset: Dataset, name: str) -> tuple[str, ...]:
    value: Any = dataset.get(name) or ()
    return (value.strip(),) if isinstance(value, str) else tuple(str(part).strip() for part in value)


def _number(dataset: Dataset, name: str) -> float | None:
    value = dataset.get(name)
    return None if value in (None, "") else float(value)


def _numbers(dataset: Dataset, name: str, count: int) -> tuple[float, ...] | None:
    value: Any = dataset.get(name)
    if value is None or isinstance(value, str | float) or len(value) != count:
        return None
    return tuple(float(part) for part in value)
