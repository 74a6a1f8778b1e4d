"""From the images of a case to the arrays the network sees: one path for training, validation and new patients."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nndet_psma.artifacts.plan import Plan
from nndet_psma.core.boxes import boxes_from_instances
from nndet_psma.core.errors import UserError
from nndet_psma.core.geometry import Geometry
from nndet_psma.dataset.body import body_mask, nonzero_mask
from nndet_psma.dataset.images import Volume, resample_volume

_DISTANCE_UNIT_MM = 0.01
_SPACING_TOLERANCE = 0.01  # relative; below it a case keeps its own grid


@dataclass(frozen=True)
class PreparedCase:
    """A case on its store grid: canonical orientation, planned spacing, cropped to the body.

    Attributes:
        case_id: name.
        arrays: by modality name, (z, y, x); CT as int16 HU, others float32.
        geometry: the store grid.
        source: the canonical grid of the files.
        ctv_distance: int16 hundredths of mm outside the CTV (negative inside), None without CTV.
        instances: int16 ids, None without labels.
        classes: class of every instance.
    """

    case_id: str
    arrays: dict[str, NDArray]
    geometry: Geometry
    source: Geometry
    ctv_distance: NDArray[np.int16] | None
    instances: NDArray[np.int16] | None
    classes: dict[int, int]

    def search_mask(self, margin_mm: float) -> NDArray[np.bool_] | None:
        """CTV grown by ``margin_mm``; None without CTV."""
        if self.ctv_distance is None:
            return None
        return self.ctv_distance <= round(margin_mm / _DISTANCE_UNIT_MM)

    def zone_mm(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance (mm) outside the CTV at voxel-edge coordinates ``[N, 3]``; 0 inside and without CTV."""
        if self.ctv_distance is None or len(points) == 0:
            return np.zeros(len(points))
        index = np.clip(np.floor(points).astype(int), 0, np.array(self.geometry.shape) - 1)
        values = self.ctv_distance[index[:, 0], index[:, 1], index[:, 2]]
        return np.clip(values * _DISTANCE_UNIT_MM, 0, None)


def prepare_case(
    case_id: str,
    volumes: dict[str, Volume],
    plan: Plan,
    *,
    ctv: Volume | None = None,
    labels: Volume | None = None,
    classes: dict[int, int] | None = None,
) -> PreparedCase:
    """Crop to the body, resample to the planned spacing, measure the distance to the CTV.

    Args:
        case_id: name, for errors.
        volumes: canonical volumes by modality name (without the CTV), all on one grid.
        plan: spacing, margins and the names of the modalities.
        ctv: binary mask on the same grid.
        labels: instance ids on the same grid.
        classes: class of every instance.

    Raises:
        UserError: the CTV is empty.
    """
    source = next(iter(volumes.values())).geometry
    crop = _body_crop(volumes, plan, source)
    target = _target_grid(crop, plan.spacing)
    arrays = {name: _image_on(volume, target, name == plan.ct_name) for name, volume in volumes.items()}
    distance = None
    if ctv is not None:
        if not ctv.array.any():
            raise UserError(f"the CTV of case {case_id} is empty", remedy="Contour it or leave the case out")
        distance = _signed_distance(_mask_on(ctv, target) > 0, target.spacing)
    instances = None if labels is None else _instances_on(labels, target)
    return PreparedCase(case_id, arrays, target, source, distance, instances, classes or {})


def body_box(volumes: dict[str, Volume], ct_name: str | None) -> NDArray[np.int64]:
    """Box ``(z0, y0, x0, z1, y1, x1)`` of the body in canonical voxels; the whole image where none is found."""
    volume = volumes[ct_name] if ct_name is not None else next(iter(volumes.values()))
    mask = (
        body_mask(volume.array, volume.geometry.spacing)
        if ct_name is not None
        else nonzero_mask(volume.array)
    )
    _, boxes = boxes_from_instances(mask.astype(np.int8))
    whole = np.array([0, 0, 0, *volume.array.shape])
    return boxes[0].astype(np.int64) if len(boxes) else whole


def crop_geometry(geometry: Geometry, box: NDArray[np.int64]) -> Geometry:
    """Grid of the part ``box`` (voxel edges) of ``geometry``."""
    origin = geometry.to_patient(box[None, :3] + 0.5)[0]
    return replace(geometry, shape=_whole(box[3:] - box[:3]), origin=_triple(origin))


def _body_crop(volumes: dict[str, Volume], plan: Plan, source: Geometry) -> Geometry:
    box = body_box(volumes, plan.ct_name)
    margin = np.ceil(plan.body_margin_mm / np.array(source.spacing)).astype(np.int64)
    margin[0] = source.shape[0]  # all axial slices stay: neighbours and table positions need them
    lower = np.maximum(box[:3] - margin, 0)
    upper = np.minimum(box[3:] + margin, source.shape)
    return crop_geometry(source, np.concatenate([lower, upper]))


def _target_grid(crop: Geometry, spacing: tuple[float, float, float]) -> Geometry:
    ratio = np.array(crop.spacing) / np.array(spacing)
    ratio[np.abs(ratio - 1) <= _SPACING_TOLERANCE] = 1.0
    shape = np.maximum(np.rint(np.array(crop.shape) * ratio), 1).astype(int)
    ratio = np.where(
        ratio == 1.0, 1.0, shape / np.array(crop.shape)
    )  # the outer edges of the grid stay in place
    new_spacing = np.array(crop.spacing) / ratio
    first_centre = crop.to_patient((0.5 / ratio)[None])[0]
    return replace(
        crop,
        shape=_whole(shape),
        spacing=_triple(new_spacing),
        origin=_triple(first_centre),
    )


def _triple(values: NDArray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _whole(values: NDArray) -> tuple[int, int, int]:
    return int(values[0]), int(values[1]), int(values[2])


def _image_on(volume: Volume, target: Geometry, is_ct: bool) -> NDArray:
    resampled = _cropped(volume, target)
    if resampled is None:
        fill = -1024.0 if is_ct else 0.0
        resampled = resample_volume(volume, target, order=1, fill=fill).array
    if is_ct:
        return np.clip(np.rint(resampled), -32768, 32767).astype(np.int16)
    return resampled.astype(np.float32)


def _mask_on(volume: Volume, target: Geometry) -> NDArray:
    cropped = _cropped(volume, target)
    return resample_volume(volume, target, order=0, fill=0.0).array if cropped is None else cropped


def _instances_on(labels: Volume, target: Geometry) -> NDArray[np.int16]:
    """Instance ids; one too small to be hit by a coarser grid keeps the voxel that holds its middle."""
    found = _mask_on(labels, target).astype(np.int16)
    lost = np.setdiff1d(labels.array[labels.array > 0], found[found > 0])
    for instance in lost:
        voxels = np.argwhere(labels.array == instance)
        middle = labels.geometry.to_patient(voxels[len(voxels) // 2][None] + 0.5)
        index = np.floor(target.to_voxels(middle)[0]).astype(int)
        inside = (index >= 0).all() and (index < target.shape).all()
        if inside and found[tuple(index)] == 0:
            found[tuple(index)] = instance
    return found


def _cropped(volume: Volume, target: Geometry) -> NDArray | None:
    """The part of the volume on ``target`` when only a crop is needed, else None."""
    if volume.geometry.spacing != target.spacing:
        return None
    start = np.rint(volume.geometry.to_voxels(target.to_patient(np.zeros((1, 3))))[0]).astype(int)
    z, y, x = (slice(a, a + n) for a, n in zip(start, target.shape, strict=True))
    return np.ascontiguousarray(volume.array[z, y, x])


def _signed_distance(mask: NDArray[np.bool_], spacing: tuple[float, float, float]) -> NDArray[np.int16]:
    """Hundredths of mm to the nearest voxel centre of the CTV (outside, positive) or of its outside (negative)."""
    if not mask.any():
        return np.full(mask.shape, 32767, dtype=np.int16)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    inside = (
        ndimage.distance_transform_edt(mask, sampling=spacing) if not mask.all() else np.zeros(mask.shape)
    )
    return np.clip((outside - inside) / _DISTANCE_UNIT_MM, -32767, 32767).astype(np.int16)
