"""Search regions and organ masks: binary, drawn, and where the patient is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.dataset.faults.kinds import Fault
from nndet_psma.dataset.images.body import body_mask
from nndet_psma.dataset.images.images import Volume
from nndet_psma.dataset.task.description import Role
from nndet_psma.dataset.task.instances import distinct_values

_COARSE_MM = 4.0
_FILLS = 0.9
_OUTSIDE = 0.5
_DRAWN_IN_SLICES = 5  # of fewer slices, one slice of CTV is no surprise


@dataclass(frozen=True)
class CoarseBody:
    """Where the patient is, on every n-th voxel within the slices: enough to say that something lies elsewhere.

    Attributes:
        mask: (z, y, x), every ``steps`` voxels in y and x.
        steps: voxels (y, x).
        voxel_mm3: volume of a coarse voxel.
    """

    mask: NDArray[np.bool_]
    steps: tuple[int, int]
    voxel_mm3: float

    @property
    def volume_mm3(self) -> float:
        """Volume of the body."""
        return float(np.count_nonzero(self.mask)) * self.voxel_mm3

    def share_outside(self, mask: NDArray[np.bool_]) -> float:
        """Share of a mask of the full grid, looked at on the coarse grid, that lies outside; 0 when none is seen."""
        coarse = mask[:, :: self.steps[0], :: self.steps[1]]
        count = int(np.count_nonzero(coarse))
        return 0.0 if count == 0 else float(np.count_nonzero(coarse & ~self.mask)) / count

    def contains(self, z: NDArray[np.int64], y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether voxels of the full grid lie in the body."""
        _, height, width = self.mask.shape
        y, x = np.minimum(y // self.steps[0], height - 1), np.minimum(x // self.steps[1], width - 1)
        return self.mask[z, y, x]


def coarse_body(volume: Volume) -> CoarseBody | None:
    """The body in a CT; None when none is found, as in an image that is not in HU."""
    spacing = volume.geometry.spacing
    steps = (max(1, round(_COARSE_MM / spacing[1])), max(1, round(_COARSE_MM / spacing[2])))
    coarse = (spacing[0], spacing[1] * steps[0], spacing[2] * steps[1])
    mask = body_mask(volume.array[:, :: steps[0], :: steps[1]], coarse)
    return CoarseBody(mask, steps, float(np.prod(coarse))) if mask.any() else None


def binary_fault(array: NDArray[Any], role: Role, file: Path) -> Fault | None:
    """A mask with values besides 0 and 1, or None."""
    if array.dtype.kind in "iub" and int(array.min()) >= 0 and int(array.max()) <= 1:
        return None
    values = distinct_values(array)
    if np.isin(values, (0, 1)).all():
        return None
    if np.isin(values, (0, 255)).all():
        return Fault(
            "mask of 0 and 255",
            f"the {role.value} is drawn with 255",
            file=file,
            expected="0 and 1",
            found="0 and 255",
            remedy="Divide the mask by 255",
        )
    shown = ", ".join(f"{value:g}" for value in values[:5].tolist())
    return Fault(
        "mask not binary",
        f"the {role.value} is not binary",
        file=file,
        expected="0 and 1",
        found=shown + (f" and {len(values) - 5} more" if len(values) > 5 else ""),
        remedy="Store one structure as 1 and everything else as 0",
    )


def region_faults(region: NDArray[np.bool_], body: CoarseBody | None, file: Path) -> Iterator[Fault]:
    """Faults of a search region (z, y, x) that is binary."""
    count = int(np.count_nonzero(region))
    if count == 0:
        yield Fault("empty CTV", "the CTV is empty", file=file, remedy="Draw it, or remove the case")
        return
    if count > _FILLS * region.size:
        yield Fault(
            "CTV fills the image",
            "the CTV covers nearly the whole image",
            file=file,
            found=f"{count / region.size:.0%} of the voxels",
            remedy="Draw the search region, or leave the CTV out of dataset.json: then the body is searched",
        )
        return
    if region.shape[0] >= _DRAWN_IN_SLICES and sum(bool(plane.any()) for plane in region) == 1:
        yield Fault(
            "CTV in one slice",
            "the CTV is drawn in a single slice",
            file=file,
            found=f"1 of {region.shape[0]} slices",
            remedy="Interpolate the contours between slices",
        )
    outside = 0.0 if body is None else body.share_outside(region)
    if outside > _OUTSIDE:
        yield Fault(
            "CTV outside the body",
            "the CTV lies outside the patient",
            file=file,
            found=f"{outside:.0%} of it in air",
            remedy="Check its origin and orientation against the CT",
        )


def leak_fault(region: NDArray[np.bool_], labels: NDArray[Any], file: Path) -> Fault | None:
    """A search region that is the lesion mask, or None."""
    if not all(np.array_equal(drawn, ids > 0) for drawn, ids in zip(region, labels, strict=True)):
        return None
    return Fault(
        "CTV equals lesions",
        "the CTV is the lesion mask, so it gives the answer away",
        file=file,
        remedy="Use the contour of the target volume, which is drawn without knowing the lesions",
    )
