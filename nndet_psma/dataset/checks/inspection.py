"""The voxels of one case judged volume by volume, as they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.checks.content_digest import content_digest
from nndet_psma.dataset.checks.images import image_faults
from nndet_psma.dataset.checks.lesions import lesion_faults
from nndet_psma.dataset.checks.masks import CoarseBody, binary_fault, coarse_body, leak_fault, region_faults
from nndet_psma.dataset.faults.findings import Finding
from nndet_psma.dataset.faults.kinds import Fault
from nndet_psma.dataset.images.images import Volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription, Role
from nndet_psma.dataset.task.instances import disagreement, instance_ids

_MASKS = (Role.CTV, Role.BLADDER, Role.PROSTATE)


class Inspection:
    """Judges the volumes of a case one after the other and keeps only what later ones are compared with.

    Args:
        case: names the files.
        description: the data set.

    Attributes:
        findings: so far.
    """

    def __init__(self, case: RawCase, description: DatasetDescription) -> None:
        self.findings: list[Finding] = []
        self._case = case
        self._description = description
        self._region: Volume | None = None
        self._region_file: Path | None = None
        self._body: CoarseBody | None = None
        self._body_grid: Geometry | None = None
        self._digest = hashlib.sha1(usedforsecurity=False)

    def add_image(self, index: int, volume: Volume) -> None:
        """Judge the image of modality ``index``, in ascending order of ``index``."""
        role, file = self._description.role(index), self._case.images[index]
        if role in _MASKS:
            fault = binary_fault(volume.array, role, file)
            if fault is not None:
                self._add(fault)
            elif role is Role.CTV:
                self._region, self._region_file = _as_mask(volume), file
            return
        self._digest.update(repr(index).encode() + content_digest(volume.array))
        faults = list(image_faults(volume.array, role, file))
        self._add(*faults)
        in_hu = not any(
            fault.kind.startswith(("CT as", "CT without", "CT wrapped", "constant")) for fault in faults
        )
        if role is Role.CT and in_hu:
            self._body = coarse_body(volume)
            self._body_grid = volume.geometry

    def finish_images(self) -> str:
        """Judge the search region, now that the body is known; the hash of all images."""
        region, file = self._region, self._region_file
        if region is not None and file is not None:
            self._add(*region_faults(region.array, self._body_on(region), file))
            self._region_file = None
        return self._digest.hexdigest()

    def add_labels(self, labels: Volume, classes: Mapping[int, int] | None) -> str | None:
        """Judge the instance mask; its hash, or None when it is empty or unusable."""
        self.finish_images()
        file = self._case.label or self._case.images[0]
        try:
            ids = instance_ids(labels.array, file)
        except Fault as fault:
            self._add(fault)
            return None
        if labels.array.dtype.kind == "f":
            self._add(_float_mask(labels, file))
        table = self._case.instances
        if classes is not None and table is not None and set(ids.tolist()) != set(classes):
            self._add(disagreement(set(ids.tolist()), set(classes), file, table))
        if len(ids) == 0:
            return None
        region = self._region
        comparable = region is not None and region.geometry.same_grid(labels.geometry)
        drawn = region.array if region is not None and comparable and region.array.any() else None
        self._add(*lesion_faults(labels, file, region=drawn, body=self._body_on(labels)))
        leak = None if drawn is None else leak_fault(drawn, labels.array, self._ctv_file())
        if leak is not None:
            self._add(leak)
        return content_digest(labels.array).hex()

    def _add(self, *faults: Fault) -> None:
        self.findings += [Finding.of(fault) for fault in faults]

    def _body_on(self, volume: Volume) -> CoarseBody | None:
        """The body, when it was seen on the grid of ``volume``."""
        grid = self._body_grid
        return self._body if grid is not None and grid.same_grid(volume.geometry) else None

    def _ctv_file(self) -> Path:
        index = self._description.ctv_modality
        return self._case.images[0 if index is None else index]


def _float_mask(labels: Volume, file: Path) -> Fault:
    return Fault(
        "mask of floats",
        "instance ids are stored as floating-point numbers",
        file=file,
        expected="whole numbers in an integer type",
        found=str(labels.array.dtype),
        remedy="Store the mask as uint8 or uint16; nnDetection refuses it otherwise",
    )


def _as_mask(volume: Volume) -> Volume:
    array: NDArray[np.bool_] = volume.array > 0
    return Volume(array, volume.geometry)
