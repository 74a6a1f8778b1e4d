"""From the images of a case to the arrays the network sees: one path for training, validation and new patients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.detector_plan import DetectorPlan
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.body import body_mask, nonzero_mask
from nndet_psma.dataset.images.images import Volume
from nndet_psma.preprocess.distance import UNIT_MM, reach_mm, signed_distance
from nndet_psma.preprocess.grid import StoreGrid, ct_on, image_on, mask_box, store_grid
from nndet_psma.preprocess.instances import ctv_on, instances_on


@dataclass(frozen=True)
class PreparedCase:
    """A case on its store grid: canonical orientation, planned spacing, cropped to the body.

    Attributes:
        case_id: name.
        arrays: by modality name, (z, y, x); CT as int16 HU, others float32.
        geometry: the store grid.
        source: the canonical grid of the files.
        ctv_distance: int16 hundredths of mm outside the CTV (negative inside), None without CTV; exact up to
            ``distance.reach_mm`` of the plan's margin, ``distance.BEYOND`` further away.
        instances: int16 ids, None without labels.
        classes: class of every instance.
        lost_instances: ids that have no voxel on the store grid.
    """

    case_id: str
    arrays: dict[str, NDArray[Any]]
    geometry: Geometry
    source: Geometry
    ctv_distance: NDArray[np.int16] | None
    instances: NDArray[np.int16] | None
    classes: dict[int, int]
    lost_instances: tuple[int, ...] = ()

    @property
    def labelled(self) -> NDArray[np.int16]:
        """``instances`` of a case that has labels.

        Raises:
            UserError: it was preprocessed without.
        """
        if self.instances is None:
            raise UserError(f"case {self.case_id} was preprocessed without labels", remedy="Run nndet_prep")
        return self.instances

    def search_mask(self, margin_mm: float) -> NDArray[np.bool_] | None:
        """CTV grown by ``margin_mm``; None without CTV."""
        if self.ctv_distance is None:
            return None
        return self.ctv_distance <= round(margin_mm / UNIT_MM)

    def zone_mm(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance (mm) outside the CTV at voxel-edge coordinates ``[N, 3]``; 0 inside and without CTV."""
        if self.ctv_distance is None or len(points) == 0:
            return np.zeros(len(points))
        index = np.clip(np.floor(points).astype(int), 0, np.array(self.geometry.shape) - 1)
        values = self.ctv_distance[index[:, 0], index[:, 1], index[:, 2]]
        outside: NDArray[np.float64] = np.clip(values * UNIT_MM, 0, None)
        return outside


class CaseAssembly:
    """A case put together file by file, so that one volume at a time is in memory.

    The first image decides the crop: the body in a CT, what is not zero in another modality.

    Args:
        case_id: name, for errors.
        plan: spacing, margins and the names of the modalities.
        name: modality of the first image: the CT where there is one.
        reference: its canonical volume.
    """

    def __init__(self, case_id: str, plan: DetectorPlan, name: str, reference: Volume) -> None:
        self.case_id = case_id
        self.plan = plan
        body = body_voxels(reference, name == plan.ct_name)
        self.grid: StoreGrid = _body_grid(reference, plan, body)
        self._body = body if plan.zscored else None
        self._arrays: dict[str, NDArray[Any]] = {}
        self._distance: NDArray[np.int16] | None = None
        self._instances: NDArray[np.int16] | None = None
        self._classes: dict[int, int] = {}
        self._lost: tuple[int, ...] = ()
        self.add_image(name, reference)

    def add_image(self, name: str, volume: Volume) -> None:
        """Crop and resample an image."""
        to_store = ct_on if name == self.plan.ct_name else image_on
        stored = to_store(volume.array, self.grid)
        if self._body is not None and name in self.plan.zscored:
            stored = _zscored(stored, volume.array[self._body] if self._body.any() else volume.array)
        self._arrays[name] = stored

    def add_ctv(self, ctv: Volume) -> None:
        """Crop and resample the CTV and measure the distance to it.

        Raises:
            UserError: it is empty.
        """
        if not ctv.array.any():
            raise UserError(
                f"the CTV of case {self.case_id} is empty", remedy="Contour it or leave the case out"
            )
        mask = ctv_on(ctv.array, self.grid)
        self._distance = signed_distance(mask, self.grid.geometry.spacing, reach_mm(self.plan.margin_mm))

    def add_labels(self, labels: Volume, classes: dict[int, int]) -> None:
        """Crop and resample the instance mask."""
        self._instances, lost = instances_on(labels.array, self.grid)
        self._classes, self._lost = classes, tuple(lost)

    def finish(self) -> PreparedCase:
        """The case, its modalities in the order of the plan."""
        names = [name for name in self.plan.modalities.values() if name in self._arrays]
        arrays = {name: self._arrays[name] for name in dict.fromkeys([*names, *self._arrays])}
        return PreparedCase(
            self.case_id,
            arrays,
            self.grid.geometry,
            self.grid.source,
            self._distance,
            self._instances,
            self._classes,
            self._lost,
        )


def prepare_case(
    case_id: str,
    volumes: dict[str, Volume],
    plan: DetectorPlan,
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
    first = reference_modality(list(volumes), plan)
    assembly = CaseAssembly(case_id, plan, first, volumes[first])
    for name, volume in volumes.items():
        if name != first:
            assembly.add_image(name, volume)
    if ctv is not None:
        assembly.add_ctv(ctv)
    if labels is not None:
        assembly.add_labels(labels, classes or {})
    return assembly.finish()


def reference_modality(names: list[str], plan: DetectorPlan) -> str:
    """The modality that decides the crop: the CT, else the first."""
    return plan.ct_name if plan.ct_name in names else names[0]


def body_voxels(volume: Volume, is_ct: bool) -> NDArray[np.bool_]:
    """Mask (z, y, x) of the body in a CT, or of what is not zero in another modality."""
    return body_mask(volume.array, volume.geometry.spacing) if is_ct else nonzero_mask(volume.array)


def _zscored(stored: NDArray[Any], body: NDArray[Any]) -> NDArray[np.float32]:
    """Standard deviations from the mean of the body's voxels; zeros where these do not vary."""
    mean, std = float(body.mean(dtype=np.float64)), float(body.std(dtype=np.float64))
    return ((stored - np.float32(mean)) / np.float32(std or 1.0)).astype(np.float32)


def _body_grid(reference: Volume, plan: DetectorPlan, body: NDArray[np.bool_]) -> StoreGrid:
    """Grid of the body's box, of the whole image where there is no body."""
    source = reference.geometry
    found = mask_box(body)
    box = np.array([0, 0, 0, *source.shape]) if found is None else found
    margin = np.ceil(plan.body_margin_mm / np.array(source.spacing)).astype(np.int64)
    margin[0] = source.shape[0]  # all axial slices stay: neighbours and table positions need them
    lower = np.maximum(box[:3] - margin, 0)
    upper = np.minimum(box[3:] + margin, source.shape)
    return store_grid(source, np.concatenate([lower, upper]), plan.spacing)
