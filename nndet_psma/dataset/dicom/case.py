"""One DICOM study as one case of a raw task: images on one grid, structures as masks, lesions as instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.atomic import write_json
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.convert.nifti import lesions_of
from nndet_psma.dataset.dicom.contours import ContourRules, rasterise
from nndet_psma.dataset.dicom.segmentation import read_segment
from nndet_psma.dataset.dicom.series import Series, read_series
from nndet_psma.dataset.dicom.structures import Roi, Segment, Structure
from nndet_psma.dataset.dicom.suv import SuvGiven, suv_factors
from nndet_psma.dataset.images.images import Volume, resample_volume, write_volume
from nndet_psma.dataset.task.description import Role
from nndet_psma.dataset.task.instances import read_instances
from nndet_psma.dataset.task.mask_values import MAX_COMPONENTS
from nndet_psma.dataset.task.paths import TaskPaths

AIR_HU = -1024
_ADC_STEP = 1000.0
_ADC_QUANTILE = 99.0
_ADC_PLAUSIBLE = 20.0
"""The 99th percentile of an ADC map in 1e-6 mm²/s lies above 1000; in 1e-3 mm²/s it is a few units."""

_INT16 = (-32768, 32767)


@dataclass(frozen=True)
class CaseSource:
    """What a case is made from.

    Attributes:
        images: series by modality; the first gives the grid.
        masks: structures by mask modality, each joined into one mask.
        lesions: structures of lesions; None for a case without labels.
        series: all series of the study: structures are drawn in the one they belong to.
        suv: what the user states instead of the header of the PET.
        rules: for contours that can be read in two ways.
    """

    images: Mapping[str, Series]
    masks: Mapping[str, tuple[Structure, ...]]
    lesions: tuple[Structure, ...] | None
    series: tuple[Series, ...]
    suv: SuvGiven = field(default_factory=SuvGiven)
    rules: ContourRules = field(default_factory=ContourRules)

    @property
    def grid(self) -> Series:
        """The series that gives the grid."""
        return next(iter(self.images.values()))


@dataclass(frozen=True)
class CaseResult:
    """What became of a case.

    Attributes:
        done: converted now; otherwise it was finished before.
        lesions: number.
        notes: what was read in a way that the user should know of, without identifiers.
    """

    done: bool
    lesions: int
    notes: tuple[str, ...] = ()


def try_case(
    job: tuple[str, CaseSource], *, paths: TaskPaths, test_ids: frozenset[str]
) -> CaseResult | UserError:
    """:func:`convert_case`, with the refusal of one case as a result, so that the others go on."""
    try:
        return convert_case(job, paths=paths, test_ids=test_ids)
    except UserError as error:
        return error


def convert_case(job: tuple[str, CaseSource], *, paths: TaskPaths, test_ids: frozenset[str]) -> CaseResult:
    """Write one case unless all its files are there.

    Raises:
        UserError: see :func:`~nndet_psma.dataset.convert.dicom.convert_dicom`.
    """
    case_id, source = job
    split = "Ts" if case_id in test_ids else "Tr"
    names = [*source.images, *source.masks]
    images = [paths.images(split) / f"{case_id}_{k:04d}.nii.gz" for k in range(len(names))]
    label, table = (paths.labels(split) / f"{case_id}{end}" for end in (".nii.gz", ".json"))
    expected = images if source.lesions is None else [*images, label, table]
    if all(file.is_file() for file in expected):
        return CaseResult(False, 0 if source.lesions is None else len(read_instances(table)))
    grid = source.grid.geometry
    notes = _notes_on_images(source)
    for name, file in zip(names, images, strict=True):
        write_volume(file, _voxels(name, source, grid, notes), grid)
    if source.lesions is None:
        return CaseResult(True, 0, tuple(notes))
    ids = number_lesions(source.lesions, source, grid, notes)
    write_volume(label, ids, grid)
    count = int(ids.max(initial=0))
    write_json(table, {"instances": {str(k): 0 for k in range(1, count + 1)}})
    return CaseResult(True, count, tuple(notes))


def _notes_on_images(source: CaseSource) -> list[str]:
    notes = []
    for name, series in source.images.items():
        if series.is_reformatted:
            notes.append(f"{name} is reformatted, not as measured")
        if len(series.uids) > 1:
            notes.append(f"{name} is joined from {len(series.uids)} series of one slice each")
    if Role.PET.value in source.images and not source.suv.is_empty:
        stated = {
            "factor": source.suv.factor,
            "dose (MBq)": source.suv.dose_mbq,
            "weight (kg)": source.suv.weight_kg,
            "seconds from injection to scan": source.suv.waited_s,
        }
        told = ", ".join(f"{name} {value:g}" for name, value in stated.items() if value is not None)
        notes.append(f"SUV from what the user stated: {told}")
    return notes


def read_modality(name: str, series: Series, suv: SuvGiven | None = None) -> Volume:
    """A series in the units of its modality, on its own grid: HU, SUV, ADC in 1e-6 mm²/s, or scanner units; float32.

    Args:
        name: of the modality.
        series: its files.
        suv: what the user states instead of the header of a PET.

    Raises:
        UserError: the files form no volume, cannot be read, or give no SUV.
    """
    volume = read_series(series)
    if name == Role.CT.value:
        _check_hu(volume, series)
        return Volume(np.maximum(volume.array, AIR_HU), volume.geometry)  # padding lies below air
    if name == Role.PET.value:
        factors = np.array(suv_factors([header.file for header in series.slices], suv), dtype=np.float64)
        return Volume((volume.array * factors[:, None, None]).astype(np.float32), volume.geometry)
    if name == Role.ADC.value:
        return Volume(adc_to_micro(volume.array), volume.geometry)
    return volume


def _check_hu(volume: Volume, series: Series) -> None:
    """Refuse values that are no HU, as of unsigned numbers that were meant to be signed.

    Raises:
        UserError: a value is beyond 16 bits.
    """
    low, high = _INT16
    found = float(volume.array.min()), float(volume.array.max())
    if found[0] < low or found[1] > high:
        raise UserError(
            "the values of the CT are implausible",
            file=series.slices[0].file,
            expected=f"{low} to {high} HU",
            found=f"{found[0]:g} to {found[1]:g}",
            remedy="Correct RescaleSlope, RescaleIntercept or PixelRepresentation, or export the series again",
        )


def adc_to_micro(array: NDArray[Any]) -> NDArray[np.float32]:
    """An ADC map in mm²/s, 1e-3 mm²/s or 1e-6 mm²/s as one in 1e-6 mm²/s: vendors differ by factors of 1000."""
    positive = array[array > 0]
    values = array.astype(np.float32)
    if positive.size == 0:
        return values
    typical = float(np.percentile(positive, _ADC_QUANTILE))
    for _ in range(2):
        if typical < _ADC_PLAUSIBLE:
            typical, values = typical * _ADC_STEP, values * np.float32(_ADC_STEP)
    return values


def on_grid(volume: Volume, grid: Geometry, fill: float) -> NDArray[Any]:
    """Values on another grid (linear); unchanged where the grids agree."""
    if volume.geometry.same_grid(grid):
        return volume.array
    return resample_volume(volume, grid, order=1, fill=fill).array


def number_lesions(
    rois: Sequence[Structure], source: CaseSource, grid: Geometry, notes: list[str]
) -> NDArray[np.uint16]:
    """Instance ids ``[z, y, x]``: every 26-connected part of every structure is a lesion, numbered 1..n.

    Where lesions overlap the smaller one is on top, so that none disappears under another.

    Args:
        rois: structures of lesions.
        source: of the case.
        grid: of the case.
        notes: what was read in a way that the user should know of is added here.

    Raises:
        UserError: a lesion falls between the voxels, is covered by others, or lies outside the image.
    """
    parts: list[NDArray[np.int64]] = []  # flat voxel indices: a mask per lesion would not fit into memory
    for roi in rois:
        ids = _roi_ids(roi, source, grid, notes, "lesion").ravel()
        inside = np.flatnonzero(ids)
        parts += [inside[ids[inside] == k] for k in range(1, int(ids.max(initial=0)) + 1)]
    if len(parts) > MAX_COMPONENTS:
        raise UserError(
            "the structures have more parts than there can be lesions",
            file=rois[0].file,
            expected=f"at most {MAX_COMPONENTS} connected parts",
            found=str(len(parts)),
            remedy="Name the structures that are lesions with --lesion-roi",
        )
    labels = np.zeros(grid.shape, dtype=np.uint16)
    for index in sorted(range(len(parts)), key=lambda k: -len(parts[k])):
        labels.ravel()[parts[index]] = index + 1
    found = len(np.unique(labels[labels > 0]))
    if found != len(parts):
        raise UserError(
            "lesions lie in the same place",
            file=rois[0].file,
            expected=f"{len(parts)} lesions",
            found=f"{found}",
            remedy="A structure may have been copied: make --lesion-roi match one of each",
        )
    return labels


def _voxels(name: str, source: CaseSource, grid: Geometry, notes: list[str]) -> NDArray[Any]:
    """What is written for a modality, in the smallest honest type."""
    if name in source.masks:
        mask = np.zeros(grid.shape, dtype=np.uint8)
        for roi in source.masks[name]:
            mask |= (_roi_ids(roi, source, grid, notes, name, split=False) > 0).astype(np.uint8)
        return mask
    series = source.images[name]
    _check_frame(series.first.frame, source.grid.first.frame, series.folder, name)
    volume = read_modality(name, series, source.suv)
    array = on_grid(volume, grid, AIR_HU if name == Role.CT.value else 0.0)
    whole = name == Role.CT.value or np.array_equal(array, np.round(array))
    if whole and _INT16[0] <= array.min() and array.max() <= _INT16[1]:
        rounded: NDArray[np.int16] = np.rint(array).astype(np.int16)
        return rounded
    return array.astype(np.float32)


def _roi_ids(
    roi: Structure, source: CaseSource, grid: Geometry, notes: list[str], what: str, *, split: bool = True
) -> NDArray[Any]:
    """Parts of a structure numbered from 1 (one part where they are not told apart) on the grid of the case."""
    _check_frame(roi.frame, source.grid.first.frame, roi.file, f"structure '{roi.name}'")
    mask, own = _draw(roi, source, grid, notes, what)
    ids = mask.astype(np.uint16)
    for window in (
        ndimage.find_objects(ids) if split else ()
    ):  # of one object: labels are sought in its box only
        ids[window] = lesions_of(mask[window], instances=False, file=roi.file)
    lost = "between the voxels"
    moved = ids
    if not own.same_grid(grid):
        moved = resample_volume(Volume(ids, own), grid, order=0, fill=0).array
        lost = f"outside or between the voxels of the {next(iter(source.images))}"
    if not ids.any() or len(np.unique(moved)) != len(np.unique(ids)):
        raise UserError(
            f"a part of structure '{roi.name}' lies {lost}",
            file=roi.file,
            remedy="Name the modality with the finer grid first, or correct the structure",
        )
    return moved


def _draw(
    roi: Structure, source: CaseSource, grid: Geometry, notes: list[str], what: str
) -> tuple[NDArray[np.bool_], Geometry]:
    """A structure on the grid that it was drawn on."""
    if isinstance(roi, Segment):
        volume = read_segment(roi)
        return volume.array, volume.geometry
    own = _drawn_in(roi, source, grid)
    drawn = rasterise(roi, own, source.rules)
    if drawn.filled:
        notes.append(
            f"{what}: contours of a structure interpolated on {drawn.filled} slices between those drawn"
        )
    return drawn.mask, own


def _drawn_in(roi: Roi, source: CaseSource, grid: Geometry) -> Geometry:
    """Grid of the series a structure was drawn on; that of the case when it is the one, or is not at hand."""
    if not roi.series or source.grid.uids & roi.series:
        return grid
    return next((one.geometry for one in source.series if one.uids & roi.series), grid)


def _check_frame(frame: str, wanted: str, file: Path, what: str) -> None:
    """Two images or structures can only be laid over each other in one frame of reference."""
    if frame and wanted and frame != wanted:
        raise UserError(
            f"{what} lies in another frame of reference than the first image",
            file=file,
            remedy="Register the images and export the result, or leave the modality out",
        )
