"""DICOM series: which files form a volume, where they lie in the patient, and their values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError, utf8_path
from nndet_psma.dataset.dicom.headers import DicomHeader, read_dataset, reason_of
from nndet_psma.dataset.dicom.values import (
    PLAUSIBLE,
    UnreadableValue,
    label,
    read_items,
    read_number,
    unreadable,
)
from nndet_psma.dataset.images.images import Volume
from nndet_psma.dataset.task.description import Role

if TYPE_CHECKING:
    from pydicom import Dataset

_SAME_DIRECTION = 1e-3
"""Largest difference of direction cosines within a series (0.06 degrees)."""

_SAME_PLACE_MM = 1e-2
_UNEVEN = 0.05
"""Largest deviation of a distance between slices from the usual one, as a fraction: beds of a PET meet that closely."""

_MISPLACED = 0.1
"""How far, in slices, a slice may lie from its place on the even grid that the volume has."""

_SHEAR_MM = 0.05
"""Largest sideways step from slice to slice; more is a tilted gantry."""

_NOT_AXES = 0.02
"""How far the axes of a slice may be from unit length and a right angle: rounded cosines are a hundredth off."""

_ADC_NAME = re.compile(r"(?<![a-z])adc(?![a-z])|apparent diffusion|_adc", re.IGNORECASE)
_T2_NAME = re.compile(r"t2", re.IGNORECASE)
_CALCULATED_NAME = re.compile(r"calc|synth|comput", re.IGNORECASE)
_TWO_B_VALUES = re.compile(r"b\d+_\d+")
_NOT_IMAGES = ("LOCALIZER", "PROJECTION IMAGE", "SCREEN SAVE")
_REFORMATTED = "MPR"
_FEWEST_SINGLE = 3
"""Series of one slice each that are joined: fewer are scouts and single shots."""

_T2_ECHO_MS, _T2_REPETITION_MS = 60.0, 1500.0


@dataclass(frozen=True)
class Series:
    """Files that form one volume: one series, or one b-value of it.

    Attributes:
        headers: of its slices, in any order; at least one.
        role: what the images are.
        b_value: of all of them, s/mm², or None.
    """

    headers: tuple[DicomHeader, ...]
    role: Role
    b_value: float | None = None

    @property
    def first(self) -> DicomHeader:
        """Header of one of the slices, for what all share."""
        return self.headers[0]

    @property
    def uids(self) -> frozenset[str]:
        """Identifiers of the series: several, where a bad de-identification gave every slice its own."""
        return frozenset(header.series for header in self.headers)

    @property
    def is_reformatted(self) -> bool:
        """Computed from other images, on another grid than was measured (ImageType MPR)."""
        return _REFORMATTED in self.first.image_type

    @property
    def folder(self) -> Path:
        """Where the files lie, for messages."""
        return self.first.file.parent

    @property
    def calculated(self) -> bool:
        """A DWI extrapolated to a b-value that was not measured."""
        names = any(map(_CALCULATED_NAME.search, (self.first.description, *self.first.image_type)))
        return names or bool(_TWO_B_VALUES.search(self.first.sequence[0]))

    @cached_property
    def slices(self) -> tuple[DicomHeader, ...]:
        """Headers sorted by position along the normal of the slices.

        Raises:
            UserError: they form no straight, even, complete stack.
        """
        return sort_slices(self.headers)

    @property
    def geometry(self) -> Geometry:
        """Grid of the volume; see :attr:`slices` for errors."""
        return stack_geometry(self.slices)

    def describe(self) -> str:
        """Short text that tells it from others, without identifiers."""
        weighting = "" if self.b_value is None else f" b={self.b_value:g}"
        return f"'{self.first.description}'{weighting} ({len(self.headers)} slices of {self.first.shape})"


def group_series(headers: Iterable[DicomHeader], *, accept_derived: bool = False) -> list[Series]:
    """All series of images among ``headers``; diffusion-weighted ones are split by b-value and trace or direction.

    Where a bad de-identification made every slice a series of its own, those that are alike form one volume.

    Args:
        headers: of one study.
        accept_derived: take reformats, too.
    """
    groups: dict[tuple[Any, ...], list[DicomHeader]] = {}
    for header in headers:
        role = role_of(header, accept_derived=accept_derived)
        if role is not None:
            weighting = (header.b_value, header.isotropic) if role is Role.DWI else ()
            groups.setdefault((header.series, role, *weighting), []).append(header)
    found = [
        Series(tuple(group), key[1], key[2] if key[1] is Role.DWI else None) for key, group in groups.items()
    ]
    return _join_single_slices(found)


def role_of(header: DicomHeader, *, accept_derived: bool = False) -> Role | None:
    """What an image is; None for localizers, reformats, other modalities and objects without voxels."""
    unwanted = _NOT_IMAGES if accept_derived else (*_NOT_IMAGES, _REFORMATTED)
    if any(word in header.image_type for word in unwanted) or 0 in header.shape:
        return None
    plain = {"CT": Role.CT, "PT": Role.PET}
    return _role_of_mr(header) if header.modality == "MR" else plain.get(header.modality)


def _join_single_slices(found: Sequence[Series]) -> list[Series]:
    alike: dict[tuple[Any, ...], list[Series]] = {}
    for series in found:
        alike.setdefault(_appearance(series), []).append(series)
    joined: list[Series] = []
    for group in alike.values():
        if len(group) >= _FEWEST_SINGLE and all(len(series.headers) == 1 for series in group):
            joined.append(Series(tuple(one.first for one in group), group[0].role, group[0].b_value))
        else:
            joined += group
    return joined


def _appearance(series: Series) -> tuple[Any, ...]:
    """Everything that slices of one volume share."""
    first = series.first
    shared = (
        first.frame,
        first.description,
        first.shape,
        first.pixel_spacing,
        first.image_type,
        first.isotropic,
    )
    turned = None if first.orientation is None else tuple(np.round(first.orientation, 3))
    return (series.role, series.b_value, turned, *shared)


def _role_of_mr(header: DicomHeader) -> Role | None:
    # Siemens keeps the b-value of the highest image in the header of the ADC map
    if "ADC" in header.image_type or _ADC_NAME.search(header.description):
        return Role.ADC
    if header.b_value is not None and not _T2_NAME.search(header.description):
        return Role.DWI
    _, echo, repetition = header.sequence
    long_times = echo >= _T2_ECHO_MS and repetition >= _T2_REPETITION_MS
    return Role.T2 if _T2_NAME.search(header.description) or long_times else None


def sort_slices(headers: Iterable[DicomHeader]) -> tuple[DicomHeader, ...]:
    """Slices of a stack in the order of their positions along the normal.

    Raises:
        UserError: several images in a file, no position, different orientations, sizes or pixel spacings, two slices
            in one place, missing slices, uneven distances, or a tilted gantry.
    """
    found = list(headers)
    _check_alike(found)
    order, heights, _ = stack_order(found)
    ordered = tuple(found[k] for k in order)
    if len(ordered) > 1:
        _check_steps(ordered, heights)
    _check_depth(ordered)
    return ordered


def stack_order(
    headers: Sequence[DicomHeader],
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Indices of slices by position along the normal of the first, those positions (mm), and the normal (LPS).

    Raises:
        UserError: a value of a header cannot be read.
    """
    for header in headers:
        if header.faults:
            raise unreadable(header.file, header.faults[0])
        if header.orientation is not None and not _are_axes(header.orientation):
            raise unreadable(
                header.file, f"{label('ImageOrientationPatient')} {header.orientation}, which are no axes"
            )
    normal = _normal(headers[0])
    heights = np.array([np.dot(normal, header.position or ()) for header in headers])
    order = np.argsort(heights, kind="stable")
    return order, heights[order], normal


def stack_geometry(slices: Sequence[DicomHeader]) -> Geometry:
    """Grid of sorted slices, or of a single one."""
    first, last = slices[0], slices[-1]
    normal = _normal(first)
    row = np.array(first.orientation, dtype=np.float64)[:3]
    row = row / np.linalg.norm(row)
    across = float(np.dot(normal, np.subtract(last.position or (), first.position or ())))
    depth = across / (len(slices) - 1) if len(slices) > 1 else (first.thickness or 1.0)
    between_rows, between_columns = first.pixel_spacing or (1.0, 1.0)
    axes = np.stack([row, np.cross(normal, row), normal], axis=1)
    x, y, z = first.position or (0.0, 0.0, 0.0)
    return Geometry(
        shape=(len(slices), *first.shape),
        spacing=(depth, between_rows, between_columns),
        origin=(x, y, z),
        direction=tuple(float(value) + 0.0 for value in axes.ravel()),
    )


def read_series(series: Series) -> Volume:
    """Values of a series: HU of a CT, stored units of a PET, scanner units of an MR; float32 ``[z, y, x]``.

    Each slice has its own slope and intercept. JPEG is decoded by ITK.

    Raises:
        UserError: the slices form no stack, or a file cannot be decoded.
    """
    geometry = series.geometry
    array = np.empty(geometry.shape, dtype=np.float32)
    for index, header in enumerate(series.slices):
        array[index] = read_slice(header.file)
    return Volume(array, geometry)


def read_slice(file: Path) -> NDArray[Any]:
    """Values of one image ``[y, x]`` with slope and intercept applied.

    Raises:
        UserError: the file is damaged, has no grey values, or a table instead of slope and intercept.
    """
    dataset = read_dataset(file, pixels=True)
    if dataset is None or "PixelData" not in dataset:
        raise UserError("no image in the DICOM file", file=file, remedy="Take the file out of the folder")
    try:
        slope, intercept = _scale(dataset, file)
    except UnreadableValue as error:
        raise unreadable(file, str(error)) from None
    return _stored(dataset, file, slope, intercept)


def _scale(dataset: Dataset, file: Path) -> tuple[float, float]:
    """Slope and intercept of grey values."""
    if (read_number(dataset, "SamplesPerPixel") or 1) != 1:
        raise UserError("a colour image", file=file, expected="grey values", remedy="Choose another series")
    if read_items(dataset, "ModalityLUTSequence"):
        raise UserError(
            "values are given by a table", file=file, expected="RescaleSlope and RescaleIntercept"
        )
    slope = read_number(dataset, "RescaleSlope")
    return (1.0 if slope is None else slope), read_number(dataset, "RescaleIntercept") or 0.0


def _stored(dataset: Dataset, file: Path, slope: float, intercept: float) -> NDArray[Any]:
    """Values of the pixels; ITK decompresses what is compressed, and applies slope and intercept."""
    from pydicom.uid import RLELossless

    try:
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        if syntax is None or not syntax.is_compressed or syntax == RLELossless:
            return dataset.pixel_array * slope + intercept
    except Exception as error:  # whatever a decoder of foreign bytes meets, the file is damaged
        raise UserError(
            "damaged DICOM file", file=file, found=reason_of(error), remedy="Export it again"
        ) from None
    return _decode_with_itk(file)


def _decode_with_itk(file: Path) -> NDArray[Any]:
    """JPEG of all kinds: ITK brings the decoders, and applies slope and intercept."""
    import SimpleITK as sitk

    try:
        first: NDArray[Any] = np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(utf8_path(file))))[0]
        return first
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            "the image cannot be decompressed",
            file=file,
            found=reason,
            remedy="Decompress the series, e.g. with dcmdjpeg or gdcmconv -w",
        ) from None


def _check_alike(headers: list[DicomHeader]) -> None:
    first = headers[0]
    for header in headers:
        if header.faults:
            raise unreadable(header.file, header.faults[0])
        if header.frames > 1:
            raise UserError(
                "several images in one file (enhanced DICOM)",
                file=header.file,
                expected="one slice per file",
                found=f"{header.frames} images",
                remedy="Export the series as classic DICOM",
            )
        if header.orientation is None or header.position is None or header.pixel_spacing is None:
            raise UserError(
                "the image has no place in the patient", file=header.file, remedy="Export it again"
            )
        if np.abs(np.subtract(header.orientation, first.orientation or ())).max() > _SAME_DIRECTION:
            raise _mixed("orientations", header, first)
        if header.shape != first.shape:
            raise _mixed("image sizes", header, first)
        if np.abs(np.subtract(header.pixel_spacing, first.pixel_spacing or ())).max() > 1e-4:
            raise _mixed("pixel spacings", header, first)


def _mixed(what: str, header: DicomHeader, first: DicomHeader) -> UserError:
    return UserError(
        f"the series mixes {what}",
        file=header.file,
        expected=f"those of {first.file.name}",
        remedy="It may hold several scans or a localizer: export each as a series of its own",
    )


def _check_steps(slices: tuple[DicomHeader, ...], heights: NDArray[np.float64]) -> None:
    steps = np.diff(heights)
    doubles = int((steps < _SAME_PLACE_MM).sum())
    if doubles:
        raise UserError(
            f"{doubles} slices lie in the place of another one",
            file=slices[int(np.argmax(steps < _SAME_PLACE_MM))].file,
            found=f"{len(slices)} files at {len(slices) - doubles} positions",
            remedy="The series holds several scans (phases, echoes, directions): export one of them",
        )
    usual = float(np.median(steps))
    wrong = np.abs(steps - usual) > max(_UNEVEN * usual, _SAME_PLACE_MM)
    if wrong.any():
        raise _uneven(slices, steps, usual, int(np.argmax(wrong)))
    misplaced = np.abs(heights - np.linspace(heights[0], heights[-1], len(heights)))
    if misplaced.max() > _MISPLACED * usual:
        raise _uneven(slices, steps, usual, min(int(np.argmax(misplaced)), len(steps) - 1))
    positions = np.array([header.position for header in slices])
    sideways = np.diff(positions, axis=0) - steps[:, None] * _normal(slices[0])
    if np.linalg.norm(sideways, axis=1).max() > _SHEAR_MM:
        raise UserError(
            "the slices are shifted against each other (tilted gantry)",
            file=slices[0].file,
            found=f"{np.linalg.norm(sideways, axis=1).max():.2f} mm per slice",
            remedy="Resample the series on a straight grid",
        )


def _check_depth(slices: tuple[DicomHeader, ...]) -> None:
    depth = stack_geometry(slices).spacing[0]
    low, high = PLAUSIBLE["PixelSpacing"]
    if not low <= depth <= high:
        raise UserError(
            "the distance of the slices is implausible",
            file=slices[0].file,
            expected=f"{low:g} to {high:g} mm",
            found=f"{depth:g} mm",
            remedy="Correct the header, or export the series again",
        )


def _are_axes(cosines: Sequence[float]) -> bool:
    """Whether direction cosines of rows and columns are of unit length and at a right angle."""
    axes = np.array(cosines, dtype=np.float64).reshape(2, 3)
    return bool(np.abs(axes @ axes.T - np.eye(2)).max() <= _NOT_AXES)


def _uneven(slices: tuple[DicomHeader, ...], steps: NDArray[np.float64], usual: float, at: int) -> UserError:
    missing = round(steps[at] / usual) - 1
    is_gap = missing >= 1 and abs(steps[at] / usual - missing - 1) < 0.1
    what = f"{missing} slices are missing" if is_gap else "the slices do not lie at even distances"
    return UserError(
        what,
        file=slices[at].file,
        expected=f"{usual:.3f} mm to the next slice",
        found=f"{steps[at]:.3f} mm",
        remedy="Export the whole series again" if is_gap else "Resample the series, or export one scan of it",
    )


def _normal(header: DicomHeader) -> NDArray[np.float64]:
    row, column = np.array(header.orientation, dtype=np.float64).reshape(2, 3)
    normal = np.cross(row, column)
    return np.asarray(normal / np.linalg.norm(normal))
