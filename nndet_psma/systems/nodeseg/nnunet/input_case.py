"""A raw case as nnU-Net gets it: canonical axes, cut to the planned box, one array per channel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.box import Boxes
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.body import body_mask
from nndet_psma.dataset.images.images import Volume, original_geometry, read_volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.dataset.task.grids import check_grids
from nndet_psma.preprocess.distance import UNIT_MM, reach_mm, signed_distance
from nndet_psma.preprocess.grid import mask_box
from nndet_psma.systems.nodeseg.plan import NodeSegPlan
from nndet_psma.systems.nodeseg.planner import NodeSegChoices

Choices = NodeSegChoices | NodeSegPlan
"""Both know channels, crop and margins."""


@dataclass(frozen=True)
class InputCase:
    """One case, cut out.

    Attributes:
        case_id: name.
        volumes: cut arrays (z, y, x) by modality index, in the type of the file.
        geometry: grid of the cut arrays.
        source: canonical grid of the files.
        image: grid of the first file in its own axis order.
        lower: first voxel of the box on ``source`` (z, y, x).
        ctv: cut mask, None without CTV.
        region: "ctv" where the CTV was at hand, else "body".
    """

    case_id: str
    volumes: Mapping[int, NDArray[Any]]
    geometry: Geometry
    source: Geometry
    image: Geometry
    lower: tuple[int, int, int]
    ctv: NDArray[np.bool_] | None

    @property
    def region(self) -> str:
        """ "ctv" or "body"."""
        return "body" if self.ctv is None else "ctv"

    @property
    def box(self) -> tuple[float, ...]:
        """The cut-out box in voxel edges of ``source``."""
        upper = np.array(self.lower) + self.geometry.shape
        return tuple(float(v) for v in (*self.lower, *upper))

    @property
    def whole(self) -> bool:
        """Nothing was cut off."""
        return self.geometry.shape == self.source.shape

    def stacked(self, choices: Choices) -> NDArray[np.float32]:
        """Channels ``[C, z, y, x]``, values as in the files."""
        return np.stack([self.volumes[channel.modality] for channel in choices.channels]).astype(np.float32)

    def on_source(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array on the cut grid put back into the canonical grid, 0 around it."""
        full = np.zeros(self.source.shape, dtype=array.dtype)
        full[self.slices] = array
        return full

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Where the box lies on ``source``."""
        z, y, x = (slice(low, low + n) for low, n in zip(self.lower, self.geometry.shape, strict=True))
        return z, y, x

    def zone_mm(self, points: Boxes, margin_mm: float) -> NDArray[np.float64]:
        """Distance (mm) outside the CTV at voxel-edge coordinates ``[N, 3]`` of the cut grid; 0 without CTV."""
        if self.ctv is None or len(points) == 0 or not self.ctv.any():
            return np.zeros(len(points))
        distance = signed_distance(self.ctv, self.geometry.spacing, reach_mm(margin_mm))
        index = np.clip(np.floor(points).astype(int), 0, np.array(self.geometry.shape) - 1)
        outside: NDArray[np.float64] = np.clip(distance[tuple(index.T)] * UNIT_MM, 0, None)
        return outside


def read_case(case: RawCase, description: DatasetDescription, choices: Choices) -> InputCase:
    """Read the files of a case and cut it.

    A case without CTV file (``--region body``) is cut to the body, or not at all where there is no CT.

    Raises:
        UserError: a file cannot be read, files lie on different grids, or the CTV is empty.
    """
    wanted = {channel.modality for channel in choices.channels}
    ctv = description.ctv_modality
    has_ctv = ctv is not None and ctv < len(case.images)
    if ctv is not None and has_ctv:
        wanted.add(ctv)
    read = {index: read_volume(case.images[index]) for index in sorted(wanted) if index < len(case.images)}
    require(case.case_id, wanted, read, description.modalities)
    check_grids(case, description, {description.modalities[index]: v for index, v in read.items()}, None)
    mask = read[ctv].array > 0 if ctv is not None and has_ctv else None
    return cut_case(case.case_id, read, mask, original_geometry(case.images[0]), choices)


def require(
    case_id: str, wanted: Iterable[int], found: Mapping[int, Volume], names: Mapping[int, str]
) -> None:
    """UserError where a case lacks an image of the modalities ``wanted``."""
    missing = sorted(set(wanted) - set(found))
    if missing:
        name = names.get(missing[0], str(missing[0]))
        raise UserError(f"case {case_id} has no {name}", remedy="The network was trained with it")


def cut_case(
    case_id: str,
    volumes: Mapping[int, Volume],
    ctv: NDArray[np.bool_] | None,
    image: Geometry,
    choices: Choices,
) -> InputCase:
    """Cut images that have been read.

    Args:
        case_id: name.
        volumes: by modality index, on one canonical grid; every channel's, and the CTV where it is one.
        ctv: mask on that grid, None without CTV.
        image: grid of the first image in its own axis order.
        choices: of a plan.

    Raises:
        UserError: the CTV is empty.
    """
    if ctv is not None and not ctv.any():
        raise UserError(f"the CTV of case {case_id} is empty", remedy="Contour it or leave the case out")
    source = volumes[min(volumes)].geometry
    lower, upper = _box(volumes, source, choices, ctv)
    cut = tuple(slice(low, up) for low, up in zip(lower, upper, strict=True))
    channels = {channel.modality for channel in choices.channels}
    return InputCase(
        case_id=case_id,
        volumes={index: volume.array[cut] for index, volume in volumes.items() if index in channels},
        geometry=cut_geometry(source, lower, upper),
        source=source,
        image=image,
        lower=lower,
        ctv=None if ctv is None else ctv[cut],
    )


Corner = tuple[int, int, int]


def _box(
    volumes: Mapping[int, Volume], source: Geometry, choices: Choices, ctv: NDArray[np.bool_] | None
) -> tuple[Corner, Corner]:
    """First voxel and end of what is cut out."""
    ct = choices.ct_modality
    if choices.crop == "ctv" and ctv is not None:
        found, grow = mask_box(ctv), choices.margin_mm + choices.context_mm
    elif choices.crop != "image" and ct is not None and ct in volumes:
        body = body_mask(volumes[ct].array, source.spacing)
        found, grow = mask_box(body), choices.margin_mm if choices.crop == "body" else 0.0
    else:
        found, grow = None, 0.0
    if found is None:
        return (0, 0, 0), source.shape
    margin = np.ceil(grow / np.array(source.spacing)).astype(np.int64)
    lower = np.maximum(found[:3] - margin, 0).tolist()
    upper = np.minimum(found[3:] + margin, source.shape).tolist()
    return (lower[0], lower[1], lower[2]), (upper[0], upper[1], upper[2])


def cut_geometry(source: Geometry, lower: Corner, upper: Corner) -> Geometry:
    """Grid of a box of voxels."""
    origin = source.to_patient(np.array([lower]) + 0.5)[0]
    shape = [up - low for low, up in zip(lower, upper, strict=True)]
    return Geometry(
        (shape[0], shape[1], shape[2]),
        source.spacing,
        (float(origin[0]), float(origin[1]), float(origin[2])),
        source.direction,
    )
