"""Measure one case: its files are read once, its voxels visited once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nndet_psma.artifacts.fingerprint import (
    CaseFingerprint,
    Histogram,
    IntensityStatistics,
    LesionFingerprint,
)
from nndet_psma.dataset.images.body import body_mask, nonzero_mask
from nndet_psma.dataset.images.images import Volume, read_volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription, Role
from nndet_psma.dataset.task.grids import check_grids
from nndet_psma.dataset.task.instances import read_labels
from nndet_psma.planners.fingerprint.ctv_distance import CtvDistance
from nndet_psma.planners.fingerprint.lesion_shape import in_plane_shape
from nndet_psma.planners.fingerprint.region_statistics import (
    BODY,
    CTV,
    LESION,
    CountedValues,
    countable,
    sampled_statistics,
    to_hu,
)

_Parts = tuple[slice, slice, slice]


def measure_case(
    case: RawCase, description: DatasetDescription, patient: str, stratum: str, inputs: str
) -> CaseFingerprint:
    """Read and measure one case in its canonical orientation.

    Raises:
        UserError: a file cannot be read, or the files lie on different grids.
    """
    labels, classes = read_labels(case, description)
    volumes = {index: read_volume(case.images[index]) for index in description.modalities}
    check_grids(case, description, {description.modalities[i]: v for i, v in volumes.items()}, labels)
    return measure_volumes(case.case_id, volumes, labels, classes, description, patient, stratum, inputs)


def measure_volumes(
    case_id: str,
    volumes: Mapping[int, Volume],
    labels: Volume,
    classes: Mapping[int, int],
    description: DatasetDescription,
    patient: str,
    stratum: str,
    inputs: str,
) -> CaseFingerprint:
    """Measure volumes that are in memory already.

    Args:
        case_id: name of the case.
        volumes: every modality by index, the CTV included; canonical axes, all on one grid.
        labels: instance ids from 1 on the same grid, 0 background.
        classes: class by instance id.
        description: dataset.json.
        patient: patient id.
        stratum: value of the stratification column.
        inputs: hash of the files.
    """
    images = description.image_modalities
    ct = next((i for i in images if description.role(i) is Role.CT), None)
    reference = volumes[images[0] if ct is None else ct]
    regions = _Regions(reference, ct is not None, _ctv_array(volumes, description), labels)
    statistics: dict[str, dict[str, IntensityStatistics]] = {}
    lesion_hu, region_hu = Histogram(), Histogram()
    for index in images:
        array = to_hu(volumes[index].array) if index == ct else volumes[index].array
        name = description.modalities[index]
        if not countable(array):
            statistics[name] = sampled_statistics(array, regions.codes)
            continue
        counted = CountedValues(array, regions.codes)
        statistics[name] = counted.statistics()
        if index == ct:
            lesion_hu, region_hu = counted.histogram("lesion"), counted.search_histogram(regions.search)
    named = {description.modalities[index]: volumes[index].array for index in images}
    return CaseFingerprint(
        case_id=case_id,
        patient_id=patient,
        stratum=stratum,
        inputs=inputs,
        shape=reference.geometry.shape,
        spacing=reference.geometry.spacing,
        body_box=_edges(regions.body_parts or _whole(reference.array)),
        ctv_box=None if regions.ctv_parts is None else _edges(regions.ctv_parts),
        body_volume_mm3=regions.body_volume_mm3,
        ctv_volume_mm3=regions.ctv_volume_mm3,
        positive_slices=regions.positive_slices,
        search_slices=regions.search_slices,
        intensities=statistics,
        lesions=_lesions(labels, classes, regions, named),
        lesion_hu=lesion_hu,
        region_hu=region_hu,
    )


class _Regions:
    """Body, CTV and lesions of a case as one array of codes, and where they lie."""

    def __init__(self, reference: Volume, is_ct: bool, ctv: NDArray[Any] | None, labels: Volume) -> None:
        spacing = reference.geometry.spacing
        array = reference.array
        body = body_mask(array, spacing) if is_ct else nonzero_mask(array)
        voxel = float(np.prod(spacing))
        self.body_parts = tight_parts(body)
        self.ctv_parts = None if ctv is None else tight_parts(ctv)
        self.lesion_parts = tight_parts(labels.array)
        self.body_volume_mm3 = np.count_nonzero(body) * voxel if self.body_parts else None
        self.ctv_volume_mm3 = None if ctv is None else np.count_nonzero(ctv) * voxel
        self.codes: NDArray[np.uint8] = body.view(np.uint8)
        self.ctv: NDArray[np.bool_] | None = None
        if ctv is not None and self.ctv_parts is not None:
            self.ctv = ctv[self.ctv_parts] > 0
            self.codes[self.ctv_parts] |= self.ctv.view(np.uint8) * np.uint8(CTV)
        if self.lesion_parts is not None:
            self.codes[self.lesion_parts] |= (labels.array[self.lesion_parts] > 0) * np.uint8(LESION)
        self.search = BODY if self.ctv is None else CTV
        searched = self.ctv_parts or self.body_parts or _whole(array)
        self.search_slices = searched[0].stop - searched[0].start
        positive = 0 if self.lesion_parts is None else labels.array[self.lesion_parts].any(axis=(1, 2)).sum()
        self.positive_slices = int(positive)


def tight_parts(array: NDArray[Any]) -> _Parts | None:
    """Slices of the tight box of what is not zero in an array (z, y, x); None when all is."""
    rows = np.stack([plane.any(axis=1) for plane in array])  # (z, y): plane by plane stays in the cache
    depth, height = (np.flatnonzero(rows.any(axis=axis)) for axis in (1, 0))
    if len(depth) == 0:
        return None
    z, y = (slice(int(found[0]), int(found[-1]) + 1) for found in (depth, height))
    width = np.flatnonzero(np.logical_or.reduce([plane.any(axis=0) for plane in array[z, y]]))
    return z, y, slice(int(width[0]), int(width[-1]) + 1)


def _ctv_array(volumes: Mapping[int, Volume], description: DatasetDescription) -> NDArray[Any] | None:
    return None if description.ctv_modality is None else volumes[description.ctv_modality].array


def _whole(array: NDArray[Any]) -> _Parts:
    depth, height, width = array.shape
    return slice(0, depth), slice(0, height), slice(0, width)


def _edges(parts: _Parts) -> tuple[float, ...]:
    return (*(float(part.start) for part in parts), *(float(part.stop) for part in parts))


def _lesions(
    labels: Volume, classes: Mapping[int, int], regions: _Regions, images: Mapping[str, NDArray[Any]]
) -> list[LesionFingerprint]:
    if regions.lesion_parts is None:
        return []
    corner = np.array([part.start for part in regions.lesion_parts])
    distance = None
    if regions.ctv is not None and regions.ctv_parts is not None:
        start = np.array([part.start for part in regions.ctv_parts])
        distance = CtvDistance(regions.ctv, start, labels.geometry.spacing)
    part_of_all = labels.array[regions.lesion_parts]
    found = []
    for instance, local in enumerate(ndimage.find_objects(part_of_all), start=1):
        if local is None:
            continue
        z, y, x = (slice(s.start + c, s.stop + c) for s, c in zip(local, corner.tolist(), strict=True))
        mask = part_of_all[local] == instance
        medians = {name: float(np.median(array[z, y, x][mask])) for name, array in images.items()}
        found.append(
            _lesion(instance, classes[instance], mask, (z, y, x), labels.geometry.spacing, distance, medians)
        )
    return found


def _lesion(
    instance: int,
    label: int,
    mask: NDArray[np.bool_],
    parts: _Parts,
    spacing: tuple[float, float, float],
    distance: CtvDistance | None,
    medians: dict[str, float],
) -> LesionFingerprint:
    outside, inside, share = None, None, None
    if distance is not None:
        outside, inside, share = distance.reach(np.argwhere(mask) + [part.start for part in parts])
    shape = in_plane_shape(mask, spacing)
    depth, height, width = mask.shape
    return LesionFingerprint(
        instance=instance,
        label=label,
        volume_mm3=float(np.count_nonzero(mask) * np.prod(spacing)),
        box=_edges(parts),
        size_mm=(depth * spacing[0], height * spacing[1], width * spacing[2]),
        slices=len(shape.slice_sizes_mm),
        outside_ctv_mm=outside,
        inside_ctv_mm=inside,
        share_in_ctv=share,
        short_axis_mm=shape.short_axis_mm,
        long_axis_mm=shape.long_axis_mm,
        size_voxels=(depth, height, width),
        slice_sizes_mm=shape.slice_sizes_mm,
        medians=medians,
    )
